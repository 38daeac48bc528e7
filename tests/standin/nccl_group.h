/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ranks of a communicator of the stand-in for NCCL, and how they meet: processes of one machine around one piece of shared memory. It is
 * made by whoever makes the unique id, has no name in any file system (the id says in which process it is open), and so
 * vanishes with its last user however that ends.
 *
 * A rank that runs a collective posts what it contributes, waits until all have posted, takes what it needs of the others, and says that it
 * has read; the next one posts only when all have read. A rank's life is a lock on a byte of the file, which the kernel drops when
 * the process ends.
 *
 * A group's functions are called by the thread that called NCCL, run_t by the one that lets streams go on: they share atomics.
 */
#ifndef SHOAL_TESTS_STANDIN_NCCL_GROUP_H
#define SHOAL_TESTS_STANDIN_NCCL_GROUP_H

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include <nccl.h>

namespace standin {

enum { MAX_RANKS = 64 };

enum coll_kind_t : int { ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE };

/* count as NCCL has it: per rank, except that all_reduce has but one. */
struct coll_t {
    coll_kind_t    kind;
    ncclDataType_t type;
    size_t         count;
    const uint8_t *send;
    uint8_t       *recv;
};

size_t nccl_type_nbytes(ncclDataType_t type); /* 0: of no stand-in */
size_t coll_send_nbytes(const coll_t &coll, int size);
size_t coll_recv_nbytes(const coll_t &coll, int size);

/* What ranks must agree on when they register a window. */
struct window_t {
    size_t offset, nbytes; /* offset from the start of the allocation */
    int    flags;
};

struct shared_t; /* the memory that ranks share */

/* Makes the shared memory behind an id, and opens what an id names: a descriptor, or -1. */
bool nccl_id_make(ncclUniqueId *id_p);
int  nccl_id_open(const ncclUniqueId &id);

struct group_t {
    int                       rank, size, fd;
    shared_t                 *shared;
    std::atomic<bool>         stopped{false}; /* aborted: whatever runs ends */
    std::atomic<bool>         busy{false};    /* a collective has begun */
    std::atomic<ncclResult_t> error{ncclSuccess};
    char                      message[512]{}; /* written before error */
    uint64_t                  done{0}, windows{0};
    std::shared_ptr<int>      holders = std::make_shared<int>(0);

    group_t(int rank, int size, int fd, shared_t *shared) : rank(rank), size(size), fd(fd), shared(shared) {}
    group_t(const group_t &) = delete;
    ~group_t();

    void fail(ncclResult_t result, const char *format, ...) __attribute__((format(printf, 3, 4)));

    bool all_came() const;
    int  twin() const;      /* the rank on the same device of the same host, or -1 */
    bool one_host() const;
    int  lost() const;      /* a rank that came, and ended without a word; or -1 */
    void leave();           /* says that this rank will do nothing more */
    bool all_left() const;
    void abandon();         /* as if the process had ended */

    /* What a captured collective keeps for as long as a graph has it, and how many are kept. */
    std::shared_ptr<int> capture() { return holders; }
    long                 captured() const { return holders.use_count() - 1; }

    /* ncclInProgress until all ranks have asked for their next window. */
    ncclResult_t agree_on_window(const window_t &window);
};

/* Joins as `rank`. NULL, after a complaint, where that rank is there already or the memory cannot be mapped. */
std::shared_ptr<group_t> nccl_join(int fd, int size, int rank, int device, uint64_t host);

/* A collective as a piece of work: a fresh copy for every launch. */
struct run_t {
    std::shared_ptr<group_t> group;
    std::shared_ptr<int>     held; /* of one that was captured */
    coll_t                   coll;
    enum { WAITING, MUTE, POSTING, COLLECTING } phase = WAITING;

    bool operator()();

  private:
    void begin();
    bool post();
    bool collect();
    bool agreed();
};

} // namespace standin

#endif
