/* SPDX-License-Identifier: BSD-3-Clause */
/* How the ranks of a communicator meet in shared memory, and what a collective does there (nccl_group.h). */
#include "tests/standin/nccl_group.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/dtype.h"
#include "tests/standin/standin.h"

namespace standin {

/* The largest contribution; of address space, not of memory: the file is sparse. */
static const size_t slot_nbytes = size_t(4) << 30;

enum state_t : int { ABSENT, JOINING, HERE, LEFT };

struct member_t {
    std::atomic<int>      state;
    int                   pid, device, size;
    uint64_t              host;
    std::atomic<uint64_t> posted, read; /* collectives */
    coll_t                coll;         /* the one that was posted last; its addresses mean nothing to others */
    std::atomic<uint64_t> window_posted, window_read;
    window_t              window;
};

struct shared_t {
    uint64_t nonce;
    member_t members[MAX_RANKS];
};

static const size_t header_nbytes = (sizeof(shared_t) + 4095) / 4096 * 4096;

struct id_t {
    char     magic[16];
    uint64_t nonce;
    int      pid, fd;
};

static_assert(sizeof(id_t) <= sizeof(ncclUniqueId), "");

static const char *const kind_names[] = {"ncclAllGather", "ncclReduceScatter", "ncclAllReduce"};

size_t nccl_type_nbytes(ncclDataType_t type)
{
    return type == ncclFloat32 ? 4 : type == ncclBfloat16 ? 2 : 0;
}

size_t coll_send_nbytes(const coll_t &coll, int size)
{
    return coll.count * nccl_type_nbytes(coll.type) * (coll.kind == REDUCE_SCATTER ? size_t(size) : 1);
}

size_t coll_recv_nbytes(const coll_t &coll, int size)
{
    return coll.count * nccl_type_nbytes(coll.type) * (coll.kind == ALL_GATHER ? size_t(size) : 1);
}

static uint8_t *slot(const group_t &group, int rank)
{
    return reinterpret_cast<uint8_t *>(group.shared) + header_nbytes + size_t(rank) * slot_nbytes;
}

/* ---- ids ---- */

bool nccl_id_make(ncclUniqueId *id_p)
{
    static std::atomic<uint64_t> made{0};
    id_t                         id = {"shoal-standin", 0, getpid(), memfd_create("shoal-standin-nccl", MFD_CLOEXEC)};
    id.nonce                        = uint64_t(id.pid) << 32 | ++made;
    if (id.fd < 0 || ftruncate(id.fd, off_t(header_nbytes + MAX_RANKS * slot_nbytes)) != 0 ||
        pwrite(id.fd, &id.nonce, sizeof(id.nonce), 0) != sizeof(id.nonce)) {
        return false;
    }
    std::memset(id_p, 0, sizeof(*id_p));
    std::memcpy(id_p, &id, sizeof(id));
    return true;
}

/* The maker's own descriptor is used by itself, too: if it closed another one, its locks on the file would go. */
int nccl_id_open(const ncclUniqueId &opaque)
{
    id_t     id;
    uint64_t nonce = 0;
    char     path[64];
    std::memcpy(&id, &opaque, sizeof(id));
    if (std::strcmp(id.magic, "shoal-standin") != 0) {
        complain("nccl: the unique id is none");
        return -1;
    }
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", id.pid, id.fd);
    int fd = id.pid == getpid() ? id.fd : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || pread(fd, &nonce, sizeof(nonce), 0) != sizeof(nonce) || nonce != id.nonce) {
        complain("nccl: process %d, which made the unique id, is gone, or its communicator is", id.pid);
        return -1;
    }
    return fd;
}

/* ---- membership ---- */

static bool lock_byte(int fd, int rank, short type)
{
    struct flock lock = {};
    lock.l_type       = type;
    lock.l_whence     = SEEK_SET;
    lock.l_start      = rank;
    lock.l_len        = 1;
    return fcntl(fd, F_SETLK, &lock) == 0;
}

static bool byte_locked(int fd, int rank)
{
    struct flock lock = {};
    lock.l_type       = F_WRLCK;
    lock.l_whence     = SEEK_SET;
    lock.l_start      = rank;
    lock.l_len        = 1;
    return fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

std::shared_ptr<group_t> nccl_join(int fd, int size, int rank, int device, uint64_t host)
{
    size_t nbytes = header_nbytes + size_t(size) * slot_nbytes;
    void  *memory = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    int    absent = ABSENT;
    if (memory == MAP_FAILED) {
        complain("nccl: %zu bytes of shared memory cannot be mapped", nbytes);
        return nullptr;
    }
    shared_t *shared = static_cast<shared_t *>(memory);
    member_t &me     = shared->members[rank];
    if (!me.state.compare_exchange_strong(absent, JOINING) || !lock_byte(fd, rank, F_WRLCK)) {
        complain("nccl: rank %d joins twice by one unique id", rank);
        munmap(memory, nbytes);
        return nullptr;
    }
    me.pid    = getpid();
    me.device = device;
    me.host   = host;
    me.size   = size;
    me.state.store(HERE);
    return std::make_shared<group_t>(rank, size, fd, shared);
}

group_t::~group_t()
{
    munmap(shared, header_nbytes + size_t(size) * slot_nbytes);
    close(fd);
}

void group_t::fail(ncclResult_t result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    complain("nccl: rank %d: %s", rank, message);
    error.store(result);
}

bool group_t::all_came() const
{
    for (int r = 0; r < size; r++) {
        if (shared->members[r].state.load() < HERE) {
            return false;
        }
        if (shared->members[r].size != size) {
            return complain("nccl: rank %d knows of %d ranks, rank %d of %d", rank, size, r, shared->members[r].size);
        }
    }
    return true;
}

int group_t::twin() const
{
    const member_t &me = shared->members[rank];
    for (int r = 0; r < size; r++) {
        if (r != rank && shared->members[r].host == me.host && shared->members[r].device == me.device) {
            return r;
        }
    }
    return -1;
}

bool group_t::one_host() const
{
    for (int r = 0; r < size; r++) {
        if (shared->members[r].host != shared->members[rank].host) {
            return false;
        }
    }
    return true;
}

int group_t::lost() const
{
    for (int r = 0; r < size; r++) {
        if (r != rank && shared->members[r].state.load() == HERE && !byte_locked(fd, r)) {
            return r;
        }
    }
    return -1;
}

void group_t::leave()
{
    shared->members[rank].state.store(LEFT);
}

bool group_t::all_left() const
{
    for (int r = 0; r < size; r++) {
        if (shared->members[r].state.load() != LEFT) {
            return false;
        }
    }
    return true;
}

void group_t::abandon()
{
    stopped.store(true);
    lock_byte(fd, rank, F_UNLCK);
}

/* ---- windows ---- */

ncclResult_t group_t::agree_on_window(const window_t &window)
{
    member_t &me     = shared->members[rank];
    uint64_t  number = windows + 1;
    for (int r = 0; r < size; r++) {
        if (shared->members[r].window_read.load() + 1 < number) {
            return ncclInProgress; /* someone still looks at the window before this one */
        }
    }
    me.window = window;
    me.window_posted.store(number);
    for (int r = 0; r < size; r++) {
        if (shared->members[r].window_posted.load() < number) {
            return ncclInProgress;
        }
    }
    ncclResult_t result = ncclSuccess;
    for (int r = 0; r < size; r++) {
        const window_t &other = shared->members[r].window;
        if (other.offset != window.offset || other.nbytes != window.nbytes || other.flags != window.flags) {
            fail(ncclInvalidArgument, "window %llu: rank %d registers %zu bytes at offset %zu, rank %d %zu at %zu", (unsigned long long)number,
                 rank, window.nbytes, window.offset, r, other.nbytes, other.offset);
            result = ncclInvalidArgument;
        }
    }
    windows = number;
    me.window_read.store(number);
    return result;
}

/* ---- a collective ---- */

/* mute=RANK:N: whether the collective that this process begins now, counted over all its communicators, never does. */
static bool is_mute(int rank)
{
    static std::atomic<int> begun{0};
    static const std::string text = setting_text("mute", "");
    int                      mute_rank = -1, number = 0, count = ++begun;
    return sscanf(text.c_str(), "%d:%d", &mute_rank, &number) == 2 && mute_rank == rank && number == count;
}

bool run_t::operator()()
{
    if (group->stopped.load()) {
        return true;
    }
    if (phase == WAITING) {
        begin();
    }
    if (phase == POSTING && post()) {
        phase = COLLECTING;
    }
    return phase == COLLECTING && collect();
}

/* One at a time: NCCL, too, runs the collectives of a communicator one after the other. */
void run_t::begin()
{
    if (!group->busy.exchange(true)) {
        phase = is_mute(group->rank) ? MUTE : POSTING;
    }
}

/* What the caller can no longer rely on is spoiled: all of the receive buffer, but for a rank's own place in an all_gather. */
static void spoil(const coll_t &coll, int rank, int size)
{
    size_t nbytes = coll_send_nbytes(coll, size), total = coll_recv_nbytes(coll, size), own = size_t(rank) * nbytes;
    if (coll.kind == ALL_GATHER && coll.send == coll.recv + own) {
        std::memset(coll.recv, 0xff, own);
        std::memset(coll.recv + own + nbytes, 0xff, total - own - nbytes);
    } else {
        std::memset(coll.recv, 0xff, total);
    }
}

bool run_t::post()
{
    member_t &me = group->shared->members[group->rank];
    for (int r = 0; r < group->size; r++) {
        if (group->shared->members[r].read.load() < group->done) {
            return false;
        }
    }
    std::memcpy(slot(*group, group->rank), coll.send, coll_send_nbytes(coll, group->size));
    spoil(coll, group->rank, group->size);
    me.coll = coll;
    me.posted.store(group->done + 1);
    return true;
}

bool run_t::agreed()
{
    for (int r = 0; r < group->size; r++) {
        const coll_t &other = group->shared->members[r].coll;
        if (other.kind != coll.kind || other.count != coll.count || other.type != coll.type) {
            group->fail(ncclInvalidUsage, "collective %llu is %s of %zu elements of type %d, but on rank %d %s of %zu of type %d",
                        (unsigned long long)group->done + 1, kind_names[coll.kind], coll.count, int(coll.type), r, kind_names[other.kind],
                        other.count, int(other.type));
            return false;
        }
    }
    return true;
}

/*
 * The rank with which sums begin. Where more than two ranks of one host may have a switch add
 * (NCCL_NVLS_ENABLE is not 0), it is another one in every collective, and with every seed.
 */
static int first_of_sums(const group_t &group)
{
    const char *nvls = getenv("NCCL_NVLS_ENABLE");
    bool        in_switch = group.size > 2 && group.one_host() &&
                     (nvls == nullptr || std::strcmp(nvls, "0") != 0);
    return in_switch ? int((setting("seed", 1) + group.done) % uint64_t(group.size)) : 0;
}

/*
 * The sum of element `at` over ranks, in a circle from the first; bf16 is rounded after each
 * addition.
 */
static void sum(const group_t &group, ncclDataType_t type, size_t at, int first, uint8_t *result_p)
{
    float        total, value;
    shoal_bf16_t total_bf16, value_bf16;
    if (type == ncclFloat32) {
        std::memcpy(&total, slot(group, first) + 4 * at, 4);
        for (int r = 1; r < group.size; r++) {
            std::memcpy(&value, slot(group, (first + r) % group.size) + 4 * at, 4);
            total += value;
        }
        std::memcpy(result_p, &total, 4);
        return;
    }
    std::memcpy(&total_bf16, slot(group, first) + 2 * at, 2);
    for (int r = 1; r < group.size; r++) {
        std::memcpy(&value_bf16, slot(group, (first + r) % group.size) + 2 * at, 2);
        total_bf16 = shoal_f32_to_bf16(shoal_bf16_to_f32(total_bf16) + shoal_bf16_to_f32(value_bf16));
    }
    std::memcpy(result_p, &total_bf16, 2);
}

bool run_t::collect()
{
    member_t *members = group->shared->members;
    size_t    element = nccl_type_nbytes(coll.type), first = coll.kind == REDUCE_SCATTER ? size_t(group->rank) * coll.count : 0;
    for (int r = 0; r < group->size; r++) {
        if (members[r].posted.load() <= group->done) {
            return false;
        }
    }
    bool fits  = agreed();
    int  begin = first_of_sums(*group);
    for (int r = 0; fits && coll.kind == ALL_GATHER && r < group->size; r++) {
        uint8_t *place = coll.recv + size_t(r) * coll.count * element;
        if (place != coll.send) {
            std::memcpy(place, slot(*group, r), coll.count * element);
        }
    }
    for (size_t i = 0; fits && coll.kind != ALL_GATHER && i < coll.count; i++) {
        sum(*group, coll.type, first + i, begin, coll.recv + i * element);
    }
    members[group->rank].read.store(++group->done);
    group->busy.store(false);
    return true;
}

} // namespace standin
