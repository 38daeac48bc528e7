/* SPDX-License-Identifier: BSD-3-Clause */
/* Which elements of a collective lie where in the pinned slots: arithmetic alone, for both halves of pinned.h. */
#include "collectives/pinned/pinned.h"

size_t shoal_pinned_slice_nelem(const shoal_pinned_comm_t *comm, shoal_coll_kind_t kind, shoal_dtype_t dtype)
{
    enum { LINE_NBYTES = 64 };
    size_t e    = shoal_dtype_nbytes(dtype);
    size_t n    = comm->wide_nbytes / e / (kind == SHOAL_COLL_ALL_REDUCE ? 1 : (size_t)comm->size);
    size_t line = LINE_NBYTES / e;
    return n > line ? n / line * line : n;
}

shoal_coll_t shoal_pinned_slot(const shoal_pinned_comm_t *comm, size_t index, shoal_coll_kind_t kind, shoal_dtype_t dtype, size_t m)
{
    size_t slot_nbytes = comm->wide_nbytes + comm->narrow_nbytes;
    char  *wide        = (char *)(comm->words + 1) + index % SHOAL_PINNED_SLOTS * slot_nbytes;
    char  *narrow      = wide + comm->wide_nbytes;
    switch (kind) {
    case SHOAL_COLL_ALL_GATHER:
        return (shoal_coll_t){kind, dtype, m, wide + (size_t)comm->self * m * shoal_dtype_nbytes(dtype), wide};
    case SHOAL_COLL_REDUCE_SCATTER: return (shoal_coll_t){kind, dtype, m, wide, narrow};
    default: return (shoal_coll_t){kind, dtype, m, NULL, wide};
    }
}
