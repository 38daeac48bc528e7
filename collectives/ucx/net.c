/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UCP behind net.h. One worker, one endpoint per connected peer, created with error handling so that a dead peer is an event
 * and not a hang. With that UCX leaves out its shared memory transports, which cannot report a death; within a host the
 * large messages still go by CMA, and groups that stay within a host do not come here at all.
 *
 * A peer that leaves says so first, in a message on FAREWELL_TAG for which every connected peer has a receive waiting. An
 * endpoint that fails after that is no news.
 */
#include "collectives/ucx/net.h"

#include <dirent.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>

#include "base/log.h"
#include "base/time.h"

enum {
    HELLO_TAG          = 0x10000, /* added to the comm's tag */
    FAREWELL_TAG       = 0x20000,
    CLOSE_TIMEOUT_MS   = 2000,
};

typedef struct {
    shoal_net_t   *net;
    int            rank;
    ucp_ep_h       ep; /* NULL: not connected */
    shoal_net_op_t hello_in, hello_out, farewell;
    char           nothing; /* where zero bytes go */
} peer_t;

struct shoal_net {
    int            rank, size;
    ucp_context_h  context;
    ucp_worker_h   worker;
    int            fd;
    double         patience_s; /* with a peer that does not connect */
    shoal_status_t status;
    bool           closing;
    size_t         address_nbytes; /* of the longest */
    char          *addresses;      /* (size, address_nbytes) */
    peer_t        *peers;     /* (size) */
};

static shoal_status_t from_ucs(ucs_status_t status, const char *doing)
{
    if (status == UCS_OK) {
        return SHOAL_OK;
    }
    shoal_error("UCX: %s: %s", doing, ucs_status_string(status));
    return status == UCS_ERR_NO_MEMORY ? SHOAL_ERR_NO_MEMORY : SHOAL_ERR_INTERNAL;
}

/* ---- Configuration ---- */

static bool has_rdma_devices(void)
{
    DIR *devices = opendir("/sys/class/infiniband");
    bool any     = false;
    if (devices != NULL) {
        for (struct dirent *e = readdir(devices); e != NULL; e = readdir(devices)) {
            any = any || e->d_name[0] != '.';
        }
        closedir(devices);
    }
    return any;
}

/* The names of all interfaces that are up and are not loopback, each once, separated by commas. Empty: none. */
static void list_interfaces(char *list_p, size_t nbytes)
{
    struct ifaddrs *all  = NULL;
    size_t          used = 0;
    list_p[0]            = '\0';
    if (getifaddrs(&all) != 0) {
        return;
    }
    for (struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
        bool usable = (i->ifa_flags & IFF_UP) != 0 && (i->ifa_flags & IFF_LOOPBACK) == 0 && i->ifa_addr != NULL &&
                      i->ifa_addr->sa_family == AF_INET;
        if (usable && strstr(list_p, i->ifa_name) == NULL && used + strlen(i->ifa_name) + 2 < nbytes) {
            used += (size_t)snprintf(list_p + used, nbytes - used, "%s%s", used > 0 ? "," : "", i->ifa_name);
        }
    }
    freeifaddrs(all);
}

static void set_default(ucp_config_t *config, const char *variable, const char *name, const char *value)
{
    if (getenv(variable) == NULL) {
        ucp_config_modify(config, name, value);
    }
}

/*
 * What the user asks for with UCX_* variables stands. UCX listens on a port of every interface that
 * it may use, so a job that can do with loopback uses nothing else: it can be connected to from its
 * own host only. Between hosts loopback is taken out by naming the other interfaces, since UCX
 * cannot exclude one; but not where RDMA devices exist, which that list would exclude, and whose
 * presence makes UCX prefer them.
 */
static void configure(ucp_config_t *config, shoal_net_reach_t reach)
{
    char interfaces[512];
    list_interfaces(interfaces, sizeof(interfaces));
    set_default(config, "UCX_KEEPALIVE_INTERVAL", "KEEPALIVE_INTERVAL", "5s");
    /*
     * Few large segments: UCX's 8 KiB cost the progress thread 1.3 times the CPU for the same bytes over TCP. Settings of a
     * single transport reach it through the environment only.
     */
    setenv("UCX_TCP_TX_SEG_SIZE", "128k", 0);
    setenv("UCX_TCP_RX_SEG_SIZE", "256k", 0);
    if (reach == SHOAL_NET_LOOPBACK) {
        set_default(config, "UCX_NET_DEVICES", "NET_DEVICES", "lo");
    } else if (reach == SHOAL_NET_HOSTS && interfaces[0] != '\0' && !has_rdma_devices()) {
        set_default(config, "UCX_NET_DEVICES", "NET_DEVICES", interfaces);
    }
}

/* The library prints for itself and takes over the signals of crashes when it is loaded; both are ours to decide. */
static void quieten_library(void)
{
    static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    if (getenv("UCX_HANDLE_ERRORS") == NULL) {
        for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
            ucs_debug_disable_signal(signals[i]);
        }
    }
    if (getenv("UCX_LOG_LEVEL") == NULL) {
        ucs_global_opts_set_value("LOG_LEVEL", "fatal");
    }
}

/* ---- Messages ---- */

/* Job rank of the sender above, the comm's tag below. */
static ucp_tag_t full_tag(int sender, int tag)
{
    return (ucp_tag_t)(uint32_t)sender << 32 | (uint32_t)tag;
}

static void fail_message(shoal_net_t *net, ucs_status_t status)
{
    if (net->status == SHOAL_OK && !net->closing) {
        shoal_error("UCX: a message failed: %s", ucs_status_string(status));
        net->status = SHOAL_ERR_PEER;
    }
}

static void complete(shoal_net_op_t *op, void *request, ucs_status_t status)
{
    op->pending = false;
    op->request = NULL;
    ucp_request_free(request);
    /* When its endpoint failed, the handler below has said so or will: it names the rank. */
    if (status != UCS_OK && status != UCS_ERR_CANCELED && status != UCS_ERR_ENDPOINT_TIMEOUT &&
        status != UCS_ERR_CONNECTION_RESET) {
        fail_message(op->net, status);
    }
}

static void sent(void *request, ucs_status_t status, void *op)
{
    complete(op, request, status);
}

static void received(void *request, ucs_status_t status, const ucp_tag_recv_info_t *info, void *op)
{
    (void)info;
    complete(op, request, status);
}

/* op is pending already, so that a callback from within the call finds it so. */
static shoal_status_t posted(shoal_net_op_t *op, ucs_status_ptr_t request)
{
    if (UCS_PTR_IS_PTR(request)) {
        op->request = op->pending ? request : NULL;
        return SHOAL_OK;
    }
    op->pending = false;
    if (UCS_PTR_IS_ERR(request)) {
        fail_message(op->net, UCS_PTR_STATUS(request));
        return op->net->status;
    }
    return SHOAL_OK;
}

shoal_status_t shoal_net_send(shoal_net_t *net, int rank, int tag, const void *data, size_t nbytes, shoal_net_op_t *op_p)
{
    ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
        .cb.send      = sent,
        .user_data    = op_p,
    };
    *op_p = (shoal_net_op_t){.pending = true, .net = net};
    return posted(op_p, ucp_tag_send_nbx(net->peers[rank].ep, data, nbytes, full_tag(net->rank, tag), &param));
}

shoal_status_t shoal_net_recv(shoal_net_t *net, int rank, int tag, void *data_p, size_t nbytes, shoal_net_op_t *op_p)
{
    ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL,
        .cb.recv      = received,
        .user_data    = op_p,
    };
    *op_p = (shoal_net_op_t){.pending = true, .net = net};
    return posted(op_p, ucp_tag_recv_nbx(net->worker, data_p, nbytes, full_tag(rank, tag), UINT64_MAX, &param));
}

bool shoal_net_progress(shoal_net_t *net)
{
    bool moved = false;
    for (int i = 0; i < 16 && ucp_worker_progress(net->worker) != 0; i++) {
        moved = true;
    }
    return moved;
}

int shoal_net_fd(const shoal_net_t *net)
{
    return net->fd;
}

bool shoal_net_arm(shoal_net_t *net)
{
    return ucp_worker_arm(net->worker) == UCS_OK;
}

shoal_status_t shoal_net_status(const shoal_net_t *net)
{
    return net->status;
}

bool shoal_net_has_left(const shoal_net_t *net, int rank)
{
    return net->peers[rank].ep != NULL && !net->peers[rank].farewell.pending;
}

/* ---- Peers ---- */

static void endpoint_failed(void *argument, ucp_ep_h ep, ucs_status_t status)
{
    peer_t *peer = argument;
    (void)ep;
    if (shoal_net_has_left(peer->net, peer->rank) || peer->net->closing || peer->net->status != SHOAL_OK) {
        return;
    }
    shoal_error("lost rank %d: %s", peer->rank, ucs_status_string(status));
    peer->net->status = SHOAL_ERR_PEER;
}

static shoal_status_t create_endpoint(shoal_net_t *net, int rank)
{
    peer_t         *peer  = &net->peers[rank];
    ucp_ep_params_t param = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address    = (const ucp_address_t *)(net->addresses + (size_t)rank * net->address_nbytes),
        .err_mode   = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = endpoint_failed, .arg = peer},
    };
    if (peer->ep != NULL) {
        return SHOAL_OK;
    }
    SHOAL_TRY(from_ucs(ucp_ep_create(net->worker, &param, &peer->ep), "connecting"));
    return shoal_net_recv(net, rank, FAREWELL_TAG, &peer->nothing, 0, &peer->farewell);
}

/* Blocks until the message is through; SHOAL_ERR_PEER at the deadline. */
static shoal_status_t finish(shoal_net_t *net, const shoal_net_op_t *op, int64_t deadline_ns)
{
    while (op->pending && net->status == SHOAL_OK) {
        if (!shoal_net_progress(net) && shoal_net_arm(net)) {
            struct pollfd activity = {.fd = net->fd, .events = POLLIN};
            int64_t       left_ms  = (deadline_ns - shoal_time_ns()) / 1000000;
            if (left_ms <= 0) {
                return SHOAL_ERR_PEER;
            }
            poll(&activity, 1, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
        }
    }
    return net->status;
}

static shoal_status_t meet(shoal_net_t *net, const peer_t *peer, int64_t deadline_ns)
{
    shoal_status_t status = finish(net, &peer->hello_in, deadline_ns);
    if (status == SHOAL_OK) {
        status = finish(net, &peer->hello_out, deadline_ns);
    }
    if (status == SHOAL_ERR_PEER && net->status == SHOAL_OK) {
        shoal_error("UCX: connecting: rank %d has not answered within %.0f s", peer->rank,
                    net->patience_s);
        net->status = SHOAL_ERR_PEER;
    }
    return status;
}

shoal_status_t shoal_net_connect(shoal_net_t *net, const int *ranks, int nranks, int tag)
{
    int64_t deadline_ns = shoal_time_ns() + (int64_t)(net->patience_s * 1e9);
    for (int i = 0; i < nranks; i++) {
        peer_t *peer = &net->peers[ranks[i]];
        SHOAL_TRY(create_endpoint(net, ranks[i]));
        SHOAL_TRY(shoal_net_recv(net, ranks[i], HELLO_TAG + tag, &peer->nothing, 0, &peer->hello_in));
        SHOAL_TRY(shoal_net_send(net, ranks[i], HELLO_TAG + tag, &peer->nothing, 0, &peer->hello_out));
    }
    for (int i = 0; i < nranks; i++) {
        SHOAL_TRY(meet(net, &net->peers[ranks[i]], deadline_ns));
    }
    return SHOAL_OK;
}

/* ---- Opening and closing ---- */

static shoal_status_t init_context(shoal_net_t *net, shoal_net_reach_t reach)
{
    ucp_config_t *config = NULL;
    ucp_params_t  params = {
         .field_mask        = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS,
         .features          = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP,
         .estimated_num_eps = (size_t)net->size,
    };
    quieten_library();
    SHOAL_TRY(from_ucs(ucp_config_read(NULL, NULL, &config), "reading its configuration"));
    configure(config, reach);
    ucs_status_t status = ucp_init(&params, config, &net->context);
    ucp_config_release(config);
    return from_ucs(status, "starting");
}

static shoal_status_t init_worker(shoal_net_t *net)
{
    ucp_worker_params_t params = {
        .field_mask  = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
        .thread_mode = UCS_THREAD_MODE_SERIALIZED, /* calls move from the thread that opens to the one that progresses */
    };
    SHOAL_TRY(from_ucs(ucp_worker_create(net->context, &params, &net->worker), "creating a worker"));
    return from_ucs(ucp_worker_get_efd(net->worker, &net->fd), "getting its event fd");
}

/* Everyone's address, padded to the longest. */
static shoal_status_t gather_addresses(shoal_net_t *net, const shoal_peers_t *peers, const ucp_address_t *mine, size_t nbytes)
{
    uint64_t  mine_nbytes = nbytes;
    uint64_t *all_nbytes  = calloc((size_t)net->size, sizeof(*all_nbytes));
    if (all_nbytes == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = peers->exchange(peers->context, &mine_nbytes, sizeof(mine_nbytes), all_nbytes);
    for (int r = 0; r < net->size; r++) {
        net->address_nbytes = all_nbytes[r] > net->address_nbytes ? all_nbytes[r] : net->address_nbytes;
    }
    free(all_nbytes);
    SHOAL_TRY(status);

    char *padded   = calloc(1, net->address_nbytes);
    net->addresses = calloc((size_t)net->size, net->address_nbytes);
    status         = SHOAL_ERR_NO_MEMORY;
    if (padded != NULL && net->addresses != NULL) {
        memcpy(padded, mine, nbytes);
        status = peers->exchange(peers->context, padded, net->address_nbytes, net->addresses);
    }
    free(padded);
    return status;
}

static shoal_status_t exchange_addresses(shoal_net_t *net, const shoal_peers_t *peers)
{
    ucp_address_t *mine   = NULL;
    size_t         nbytes = 0;
    SHOAL_TRY(from_ucs(ucp_worker_get_address(net->worker, &mine, &nbytes), "getting its address"));
    shoal_status_t status = gather_addresses(net, peers, mine, nbytes);
    ucp_worker_release_address(net->worker, mine);
    return status;
}

static shoal_status_t open_all(shoal_net_t *net, const shoal_peers_t *peers,
                               shoal_net_reach_t reach)
{
    net->peers = calloc((size_t)net->size, sizeof(*net->peers));
    if (net->peers == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int r = 0; r < net->size; r++) {
        net->peers[r].net  = net;
        net->peers[r].rank = r;
    }
    SHOAL_TRY(init_context(net, reach));
    SHOAL_TRY(init_worker(net));
    return exchange_addresses(net, peers);
}

shoal_status_t shoal_net_open(const shoal_peers_t *peers, shoal_net_reach_t reach,
                              double patience_s, shoal_net_t **net_p)
{
    shoal_net_t *net = calloc(1, sizeof(*net));
    if (net == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    net->rank             = peers->rank;
    net->size             = peers->size;
    net->patience_s       = patience_s;
    shoal_status_t status = open_all(net, peers, reach);
    if (status != SHOAL_OK) {
        shoal_net_close(net, false);
        return status;
    }
    *net_p = net;
    return SHOAL_OK;
}

/* Progresses until the request is through or the deadline has passed; an endpoint to a dead peer must not hold up the exit. */
static void drain_request(shoal_net_t *net, ucs_status_ptr_t request, int64_t deadline_ns)
{
    if (!UCS_PTR_IS_PTR(request)) {
        return;
    }
    while (ucp_request_check_status(request) == UCS_INPROGRESS && shoal_time_ns() < deadline_ns) {
        ucp_worker_progress(net->worker);
    }
    ucp_request_free(request);
}

static void close_endpoint(shoal_net_t *net, peer_t *peer, bool in_order, int64_t deadline_ns)
{
    ucp_request_param_t flush = {.op_attr_mask = 0};
    ucp_request_param_t force = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};
    bool                has_left = shoal_net_has_left(net, peer->rank);
    if (!has_left && peer->farewell.request != NULL) {
        ucp_request_cancel(net->worker, peer->farewell.request);
    }
    drain_request(net, ucp_ep_close_nbx(peer->ep, in_order && !has_left ? &flush : &force), deadline_ns);
}

static void say_farewell(shoal_net_t *net)
{
    for (int r = 0; r < net->size; r++) {
        peer_t *peer = &net->peers[r];
        if (peer->ep != NULL && !shoal_net_has_left(net, r)) {
            (void)shoal_net_send(net, r, FAREWELL_TAG, &peer->nothing, 0, &peer->hello_out);
        }
    }
}

void shoal_net_close(shoal_net_t *net, bool in_order)
{
    int64_t deadline_ns = shoal_time_ns() + (int64_t)CLOSE_TIMEOUT_MS * 1000000;
    net->closing        = true;
    if (net->worker != NULL && in_order) {
        say_farewell(net);
    }
    for (int r = 0; net->peers != NULL && r < net->size; r++) {
        if (net->peers[r].ep != NULL) {
            close_endpoint(net, &net->peers[r], in_order, deadline_ns);
        }
    }
    if (net->worker != NULL) {
        ucp_worker_destroy(net->worker);
    }
    if (net->context != NULL) {
        ucp_cleanup(net->context);
    }
    free(net->addresses);
    free(net->peers);
    free(net);
}
