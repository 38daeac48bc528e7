/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One rank of a run, assembled: device, transport, plan, memory, initial state, data, executor. Creation and every call are
 * collective over the ranks. Creation agrees on errors: when any rank fails, all ranks return an error (the same exit code),
 * so nobody waits for a rank that is gone.
 */
#ifndef SHOAL_RUNTIME_EXECUTE_TRAINER_H
#define SHOAL_RUNTIME_EXECUTE_TRAINER_H

#include "runtime/bootstrap/affinity.h"
#include "runtime/bootstrap/bootstrap.h"
#include "runtime/execute/data.h"
#include "runtime/execute/executor.h"
#include "runtime/execute/record.h"

typedef struct {
    const shoal_spec_t          *spec;
    shoal_bootstrap_t           *bootstrap;
    shoal_peers_t                peers;
    shoal_device_t              *device;
    shoal_device_info_t          device_info;
    int                          sharers; /* ranks of this host on this device, this one counted */
    const shoal_transport_ops_t *transport_ops;
    shoal_transport_t           *transport;
    shoal_data_t                *train_data, *valid_data;
    shoal_step_t                 step;
    shoal_board_t               *board; /* of devices with a stream, where there are several ranks */
    shoal_executor_t            *executor;
    char                        *region;
    size_t                       used_nbytes; /* allocated on the device: what the plan must equal */
    shoal_affinity_t             affinity;
    bool                         stop;   /* this rank was asked to stop; set by the caller before a step */
    bool                         time_ops; /* every op of every step shall be timed; set by the caller */
    /* What the fetch callback reads. */
    const shoal_data_t *fetch_data;
    uint64_t            fetch_first; /* global index of the step's first sample */
    /* What is read while a GPU works: the tokens and targets of the next training step, as its FETCH ops will ask for them. */
    struct {
        int32_t       *tokens;     /* (accumulate, 2, local, T) */
        uint64_t       want, held; /* first sample of the step that comes next, and of the one that tokens holds */
        bool           is_wanted, is_held;
        shoal_status_t status;     /* of reading it, for the step itself to return; it has been logged */
    } ahead;
} shoal_trainer_t;

/* The trainer holds pointers into itself: it must not be moved. Destroy also after a failed creation. */
shoal_status_t shoal_trainer_create(const shoal_spec_t *spec, shoal_bootstrap_t *bootstrap, shoal_trainer_t *trainer_p);
void           shoal_trainer_destroy(shoal_trainer_t *trainer);

/* Optimizer step t, from 1. *stopped_p: some rank's `stop` was set before the step, so all ranks end after it. */
shoal_status_t shoal_trainer_step(shoal_trainer_t *trainer, size_t t, shoal_step_record_t *record_p, bool *stopped_p);

/* Mean loss over the first run.eval_batches global batches of the validation file. */
shoal_status_t shoal_trainer_eval(shoal_trainer_t *trainer, double *loss_p);

/* What a run's configuration asks of its device. */
shoal_device_config_t shoal_device_config(const shoal_spec_t *spec, int local_rank, int nthreads);

/* Likewise of its transport. */
shoal_transport_config_t shoal_transport_config(const shoal_spec_t *spec);

/*
 * Bytes of a device's memory that the plan must leave to the device's libraries and to the
 * communicators of a rank: run.reserve_gib, or what device and transport estimate; 0 for CPUs.
 */
size_t shoal_reserve_nbytes(const shoal_spec_t *spec, const shoal_device_info_t *info,
                            const shoal_transport_ops_t *transport, int nranks);

/* The worst status over the ranks: every rank passes its own and gets the same answer. */
shoal_status_t shoal_trainer_agree(const shoal_peers_t *peers, shoal_status_t status);

#endif
