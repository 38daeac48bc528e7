/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the ranks of one host share, and who else may have it: a process of another user, which
 * looks for sockets to connect to and for descriptors to open while the ranks find each other, gets
 * nothing and disturbs nothing. And where UCX listens when a job of one host talks through it: on
 * loopback alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collectives/ucx/host.h"
#include "runtime/bootstrap/bootstrap.h"
#include "tests/rank_check.h"

enum { NRANKS = 3, NOBODY = 65534 };

/* What the test, its ranks and the stranger tell each other. */
typedef struct {
    atomic_int pids[NRANKS];
    atomic_int ready, over;
    atomic_int nconnected, nreceived, nopened, nlooks;
} shared_t;

static shared_t *shared;

/* ---- The stranger ---- */

/* Greets as mate 1 does whatever listens there, and counts what it is given. */
static void call(const char *name)
{
    union {
        char           bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    int32_t            greeting = 1;
    struct iovec       data     = {.iov_base = &greeting, .iov_len = sizeof(greeting)};
    struct msghdr      message  = {.msg_iov        = &data,
                                   .msg_iovlen     = 1,
                                   .msg_control    = control.bytes,
                                   .msg_controllen = sizeof(control)};
    struct sockaddr_un address  = {.sun_family = AF_UNIX};
    struct timeval     limit    = {.tv_usec = 100000};
    int                sock     = socket(AF_UNIX, SOCK_STREAM, 0);
    size_t             n =
        strlen(name) < sizeof(address.sun_path) - 1 ? strlen(name) : sizeof(address.sun_path) - 1;
    memcpy(address.sun_path + 1, name, n);
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(sock, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) == 0) {
        shared->nconnected++;
        if (send(sock, &greeting, sizeof(greeting), MSG_NOSIGNAL) == sizeof(greeting) &&
            recvmsg(sock, &message, 0) > 0) {
            shared->nreceived += CMSG_FIRSTHDR(&message) != NULL;
        }
    }
    close(sock);
}

static void call_all(void)
{
    char  line[512];
    FILE *sockets = fopen("/proc/net/unix", "re");
    while (sockets != NULL && fgets(line, sizeof(line), sockets) != NULL) {
        char *name = strstr(line, "@shoal");
        if (name != NULL) {
            name[strcspn(name, "\n")] = '\0';
            call(name + 1);
        }
    }
    if (sockets != NULL) {
        fclose(sockets);
    }
}

/* Every number that a descriptor of a rank may have. */
static void open_all(int pid)
{
    for (int fd = 0; pid > 0 && fd < 64; fd++) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
        int opened = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (opened >= 0) {
            shared->nopened++;
            close(opened);
        }
    }
}

static _Noreturn void be_a_stranger(void)
{
    CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    while (!shared->over) {
        shared->nlooks++;
        call_all();
        for (int r = 0; r < NRANKS; r++) {
            open_all(shared->pids[r]);
        }
        shared->ready = 1;
    }
    _exit(0);
}

/* ---- The ranks ---- */

static int rank_shares(void *argument)
{
    (void)argument;
    shoal_bootstrap_t *b;
    shoal_host_t      *host        = NULL;
    bool               one_network = false;
    CHECK(shoal_bootstrap_open("auto", &b) == SHOAL_OK);
    shoal_peers_t peers = shoal_bootstrap_peers(b);
    shared->pids[b->rank] = getpid();
    usleep(b->rank == 1 ? 300000
                        : 0); /* in which a stranger has time for what the others have made */
    CHECK(shoal_host_open(&peers, &host, &one_network) == SHOAL_OK);
    CHECK(host != NULL && shoal_host_nmates(host) == NRANKS && one_network);
    int looks = shared->nlooks;
    for (int i = 0; shared->ready && shared->nlooks < looks + 2 && i < 20000; i++) {
        usleep(1000);
    }
    shoal_host_close(host, true);
    shoal_bootstrap_close(b);
    return 0;
}

static void test_a_stranger_gets_nothing(void **state)
{
    (void)state;
    if (getuid() != 0) {
        print_message("not root, so there is no other user to be\n");
        skip();
    }
    memset(shared, 0, sizeof(*shared));
    pid_t stranger = fork();
    if (stranger == 0) {
        be_a_stranger();
    }
    while (!shared->ready && waitpid(stranger, NULL, WNOHANG) == 0) {
        usleep(1000);
    }
    int code     = shoal_bootstrap_launch_local(NRANKS, rank_shares, NULL);
    shared->over = 1;
    int status;
    assert_int_equal(waitpid(stranger, &status, 0), stranger);
    assert_int_equal(status, 0);
    assert_int_equal(code, 0);
    assert_int_equal(shared->nconnected, 0);
    assert_int_equal(shared->nreceived, 0);
    assert_int_equal(shared->nopened, 0);
}

static void test_ranks_share(void **state)
{
    (void)state;
    memset(shared, 0, sizeof(*shared));
    assert_int_equal(shoal_bootstrap_launch_local(NRANKS, rank_shares, NULL), 0);
}

/* ---- Listening ---- */

static bool is_mine(unsigned long inode)
{
    char         path[64], target[64], wanted[64];
    DIR         *descriptors = opendir("/proc/self/fd");
    bool         found       = false;
    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    for (struct dirent *d = readdir(descriptors); d != NULL && !found; d = readdir(descriptors)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%.32s", d->d_name);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        found     = n > 0 && (target[n] = '\0', strcmp(target, wanted) == 0);
    }
    closedir(descriptors);
    return found;
}

/* How many of this process's listening sockets are on an address, as /proc/net/tcp writes it, that
 * is not loopback's. */
static int count_exposed(const char *path, const char *loopback)
{
    char          line[512], address[64];
    unsigned      kind;
    unsigned long inode;
    int           count = 0;
    FILE         *file  = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        bool read = sscanf(line, " %*d: %63[0-9A-F]:%*x %*s %x %*s %*s %*s %*d %*d %lu", address,
                           &kind, &inode) == 3;
        count += read && kind == 0x0a && strcmp(address, loopback) != 0 && is_mine(inode);
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static int rank_listens(void *argument)
{
    const shoal_transport_ops_t *ops = argument;
    shoal_bootstrap_t           *b;
    shoal_transport_t           *transport;
    char                         mine = 0, all[NRANKS];
    CHECK(shoal_bootstrap_open("auto", &b) == SHOAL_OK);
    shoal_peers_t peers = shoal_bootstrap_peers(b);
    CHECK(ops->open(&peers, &(shoal_transport_config_t){.patience_s = 60}, &transport) == SHOAL_OK);
    CHECK(count_exposed("/proc/net/tcp", "0100007F") == 0);
    CHECK(count_exposed("/proc/net/tcp6", "00000000000000000000000001000000") == 0);
    CHECK(peers.exchange(peers.context, &mine, 1, all) == SHOAL_OK);
    ops->close(transport);
    shoal_bootstrap_close(b);
    return 0;
}

static void test_one_host_listens_on_loopback(void **state)
{
    const shoal_transport_ops_t *ops;
    (void)state;
    if (shoal_transport_find("ucx", NRANKS, false, &ops) != SHOAL_OK) {
        skip();
    }
    setenv("SHOAL_UCX_DIRECT", "0", 1);
    int code = shoal_bootstrap_launch_local(NRANKS, rank_listens, (void *)(uintptr_t)ops);
    unsetenv("SHOAL_UCX_DIRECT");
    assert_int_equal(code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_share),
        cmocka_unit_test(test_a_stranger_gets_nothing),
        cmocka_unit_test(test_one_host_listens_on_loopback),
    };
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared != MAP_FAILED ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
