/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device runs ops. Two backends exist: `cpu` (kernels/cpu) and, where it was built, `cuda` (kernels/cuda). A backend is
 * one const table of functions; an instance is a shoal_device_t, whose first member is the table.
 *
 * Threads: an instance belongs to the thread that opened it; alloc and free may be called from any thread.
 * Streams: a device with `stream` enqueues: `run` may return before the op has finished, ops run in the order of the calls, and the
 * host must not look at the device's memory but through upload and download. Without (the CPU), `run` returns when the op is
 * done, and the device's memory is the host's.
 * Errors: every function logs the cause once and returns its status; SHOAL_ERR_NO_MEMORY from alloc and open, and from
 * what libraries take memory of their own for: run, prepare, record_end, replay.
 */
#ifndef SHOAL_KERNELS_DEVICE_H
#define SHOAL_KERNELS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "kernels/ops.h"
#include "kernels/rates.h"

typedef struct shoal_device shoal_device_t;

/* CUDA, attention in bf16: `auto` is cuDNN, without which it fails on sm_80 and sm_90 and makes do with its own kernels on others. */
typedef enum { SHOAL_ATTENTION_AUTO, SHOAL_ATTENTION_CUDNN, SHOAL_ATTENTION_OWN } shoal_attention_t;

typedef struct {
    int         local_rank; /* which of the node's devices */
    int         nthreads;   /* CPU: threads of the OpenMP team, at least 1 */
    const char *variant;    /* CPU: "ref", "simd" (or "avx2", "avx512"), "auto" (also oneDNN's matmul); NULL: "auto" */
    bool        plan_only;  /* no memory, no runs: a device that this machine lacks can still be planned for */
    /* CUDA, with plan_only: "h100", "h200" or "a100"; anything else and NULL: "h200". */
    const char *planned;
    bool        required;   /* that the device cannot be had is an error, and logged as one */
    bool        nondeterministic; /* CUDA: faster kernels whose bits may differ from run to run */
    shoal_attention_t attention;
    bool        untuned;          /* CUDA: take cuBLASLt's first choice rather than time several and remember the fastest */
} shoal_device_config_t;

/* What a device says of itself, for `info`, records and MFU. */
typedef struct {
    char   name[112];          /* the processor's name; of a GPU with its driver's version */
    char   kernels[192];       /* what the matrix products and attention run on; after the runs, also what did not run as meant */
    char   id[48];             /* the same for ranks of one host that share the device's memory: "" or of a GPU, or a part of one, the UUID */
    char   pci[32];            /* where a GPU stands; its parts stand in one place. "" of what is no GPU */
    size_t memory_nbytes;      /* what these ranks together may hope to allocate now */
    size_t total_nbytes;       /* of a GPU: all of its memory, so that the difference is in use, by whomever; 0: not known */
    double peak_f32_flops;     /* dense peak per rank, by datasheet; 0 where none is known (CPU): see measure_peak */
    double peak_bf16_flops;
    double memory_gbs;         /* GB/s of its memory, by datasheet; 0 where none is known */
    double link_gbs;           /* GB/s to other GPUs of the host, one way, by datasheet; 0 where the name does not tell */
    /* How long ops and collectives take; NULL where that is not known. Constant. */
    const shoal_rates_t *rates;
    /* Of its memory that libraries, modules and recordings take after this; an estimate. */
    size_t overhead_nbytes;
    /* Attention's backward pass writes every score to memory and reads it again. */
    bool   stores_scores;
} shoal_device_info_t;

/* Work recorded once, to be enqueued again at the price of one call. */
typedef struct shoal_recording shoal_recording_t;

/* The streams of such a device: kernels run on the first, collectives on the others, which go first where both could. */
typedef enum { SHOAL_QUEUE_COMPUTE, SHOAL_QUEUE_GATHER, SHOAL_QUEUE_REDUCE, SHOAL_QUEUE_COUNT } shoal_queue_t;

/* What only a device with a stream can do. Without a queue among its arguments a function means the compute queue. */
typedef struct {
    /* Host memory from which copies to the device are fast and asynchronous. */
    shoal_status_t (*alloc_host)(shoal_device_t *device, size_t nbytes, void **memory_p);
    void (*free_host)(shoal_device_t *device, void *memory);
    /* Says in the log that nbytes cannot be had, and what can: for those who allocate this device's memory beside `alloc`. */
    void (*say_full)(shoal_device_t *device, size_t nbytes);
    /* Enqueues a copy from such memory, which must stay as it is until the stream has got there. */
    shoal_status_t (*enqueue_upload)(shoal_device_t *device, void *to, const void *from_host, size_t nbytes);
    /* Time stamps: marks 0 .. count - 1; `between` is for two that synchronize has waited for. */
    shoal_status_t (*reserve_marks)(shoal_device_t *device, int count);
    shoal_status_t (*mark)(shoal_device_t *device, shoal_queue_t queue, int mark);
    shoal_status_t (*between)(shoal_device_t *device, int from, int to, double *ms_p);
    /* Order between queues: what follows `await` on its queue waits for what came before the latest `signal` of that number, 0 .. count - 1. */
    shoal_status_t (*reserve_signals)(shoal_device_t *device, int count);
    shoal_status_t (*signal)(shoal_device_t *device, shoal_queue_t queue, int number);
    shoal_status_t (*await)(shoal_device_t *device, shoal_queue_t queue, int number);
    /*
     * Leaves a number, from 0, on the host when the queue gets there. last_note is -1 before the first and after forget_notes, which wants
     * idle queues; it also answers after an error that lost the device.
     */
    shoal_status_t (*note)(shoal_device_t *device, shoal_queue_t queue, int number);
    int (*last_note)(shoal_device_t *device, shoal_queue_t queue);
    void (*forget_notes)(shoal_device_t *device);
    /* What the device's own libraries call this queue: a cudaStream_t. For transports that enqueue (collectives/transport.h). */
    void *(*native)(shoal_device_t *device, shoal_queue_t queue);
    /*
     * Ops run from here on leave this many multiprocessors to other queues, as far as their kernels can be told; until the next call,
     * and 0 at first. SHOAL_ERR_CONFIG when the device has not twice as many.
     */
    shoal_status_t (*leave_room)(shoal_device_t *device, int multiprocessors);
    /* SHOAL_OK when everything on the compute queue is done, else SHOAL_IN_PROGRESS or an error. */
    shoal_status_t (*poll)(shoal_device_t *device);
    /*
     * Does for an op what its first run would do beyond later ones, choosing among kernels by timing them, say; on idle queues, so that no
     * step waits for it. Arguments as for `run`; what the op overwrites is undefined afterwards, what it adds to is untouched.
     */
    shoal_status_t (*prepare)(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace);
    /* Enqueues a fill of memory with ordinary numbers whatever their type, for `prepare` to time ops on: zeros would flatter. */
    shoal_status_t (*fill_noise)(shoal_device_t *device, void *memory, size_t nbytes);
    /*
     * From record_begin to record_end, what is enqueued is recorded instead of executed, with the addresses that it is given. Ops must have been
     * run once before. Other queues than compute begin by awaiting a signal of it, and compute awaits one of theirs at the end.
     */
    shoal_status_t (*record_begin)(shoal_device_t *device);
    shoal_status_t (*record_end)(shoal_device_t *device, shoal_recording_t **recording_p);
    shoal_status_t (*replay)(shoal_device_t *device, shoal_recording_t *recording);
    /*
     * NULL is allowed. Does not wait: a replay that is under way goes on, and what the recording
     * holds is given back when it has ended.
     */
    void (*recording_free)(shoal_recording_t *recording);
} shoal_stream_ops_t;

typedef struct {
    const char *name;
    const shoal_stream_ops_t *stream; /* NULL: runs are synchronous */
    shoal_status_t (*open)(const shoal_device_config_t *config, shoal_device_t **device_p);
    void (*close)(shoal_device_t *device);
    void (*info)(shoal_device_t *device, shoal_device_info_t *info_p);
    /* 64-byte aligned memory of the device, not zeroed. */
    shoal_status_t (*alloc)(shoal_device_t *device, size_t nbytes, void **memory_p);
    void (*free)(shoal_device_t *device, void *memory, size_t nbytes);
    shoal_status_t (*upload)(shoal_device_t *device, void *to, const void *from_host, size_t nbytes);
    shoal_status_t (*download)(shoal_device_t *device, void *to_host, const void *from, size_t nbytes);
    /*
     * Bytes of scratch memory that `run` needs for this op. Needs no memory of the device: `plan` calls it too. SHOAL_ERR_CONFIG for an
     * op that the device was told not to serve with the kernels that it has.
     */
    shoal_status_t (*workspace)(shoal_device_t *device, const shoal_op_t *op, size_t *nbytes_p);
    /*
     * Runs a compute op (kind < SHOAL_OP_COMPUTE_COUNT). args holds SHOAL_OP_MAX_ARGS pointers as the op's contract says;
     * workspace is at least as large as `workspace` said. Allocates nothing after the first run of an op of these
     * dimensions.
     */
    shoal_status_t (*run)(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace);
    /* Waits until everything enqueued is done. */
    shoal_status_t (*synchronize)(shoal_device_t *device);
    /* Matrix rate in flop/s that a large product reaches on this device, measured now in some tens of milliseconds. */
    shoal_status_t (*measure_peak)(shoal_device_t *device, shoal_dtype_t dtype, double *flops_p);
} shoal_device_ops_t;

struct shoal_device {
    const shoal_device_ops_t *ops;
};

extern const shoal_device_ops_t shoal_cpu_device_ops;
/*
 * In the module "cuda" of builds with SHOAL_HAVE_CUDA; open says SHOAL_ERR_UNSUPPORTED where there is no GPU, and logs why as info, or
 * error if `required`.
 */
extern const shoal_device_ops_t shoal_cuda_device_ops;

/* A backend of this build. One that needs large libraries is in a module of its name (base/module.h). */
typedef struct {
    const char               *name;
    const shoal_device_ops_t *ops;    /* NULL: in its module */
    const char               *symbol; /* what the module calls it; NULL: it is in no module */
    /* The driver's library, without which a machine has no such device, and how that is said. NULL: there is always one. */
    const char *driver, *no_driver;
} shoal_device_backend_t;

/* Ended by a NULL name, in the order in which "auto" tries them: "cpu" is always there. */
extern const shoal_device_backend_t shoal_device_backends[];

/* The backend's table; SHOAL_ERR_UNSUPPORTED, with the reason in why_p, when its module cannot be opened. */
shoal_status_t shoal_device_table(const shoal_device_backend_t *backend, const shoal_device_ops_t **ops_p, char *why_p,
                                  size_t why_nbytes);

/*
 * Opens the device named "cpu", "cuda" or "auto" ("cuda" if the build and the machine have it, else "cpu"). Asking for one
 * that is not in the build or not on this machine is SHOAL_ERR_CONFIG, and the message says which and why.
 */
shoal_status_t shoal_device_open(const char *name, const shoal_device_config_t *config, shoal_device_t **device_p);

#endif
