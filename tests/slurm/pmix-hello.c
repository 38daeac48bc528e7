// SPDX-License-Identifier: BSD-3-Clause
//
// Each rank publishes its host's name over PMIx and prints, in one line, its rank and the names that it got from all
// ranks: "1/3 n1 n2 n3". That all lines agree shows that srun's PMIx servers exchange data between the hosts.

#include <pmix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pmix_proc_t everyone;

static void must(pmix_status_t rc, const char *what)
{
    if (rc != PMIX_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, PMIx_Error_string(rc));
        exit(1);
    }
}

static void publish_host(void)
{
    char host[256];
    pmix_value_t value;

    gethostname(host, sizeof host);
    PMIX_VALUE_LOAD(&value, host, PMIX_STRING);
    must(PMIx_Put(PMIX_GLOBAL, "hello.host", &value), "PMIx_Put");
    must(PMIx_Commit(), "PMIx_Commit");
    PMIX_VALUE_DESTRUCT(&value);
}

static void exchange(void)
{
    bool collect = true;
    pmix_info_t info;

    PMIX_INFO_LOAD(&info, PMIX_COLLECT_DATA, &collect, PMIX_BOOL);
    must(PMIx_Fence(&everyone, 1, &info, 1), "PMIx_Fence");
    PMIX_INFO_DESTRUCT(&info);
}

static unsigned get_size(void)
{
    pmix_value_t *value;
    unsigned size;

    must(PMIx_Get(&everyone, PMIX_JOB_SIZE, NULL, 0, &value), "PMIx_Get of the size");
    size = value->data.uint32;
    PMIX_VALUE_RELEASE(value);
    return size;
}

// The line is written at once, because srun mixes the output of ranks only between writes.
static void print_hosts(unsigned rank, unsigned size)
{
    char line[4096];
    int length = snprintf(line, sizeof line, "%u/%u", rank, size);
    pmix_proc_t peer = everyone;
    pmix_value_t *value;

    for (peer.rank = 0; peer.rank < size; peer.rank++) {
        must(PMIx_Get(&peer, "hello.host", NULL, 0, &value), "PMIx_Get of a host");
        length += snprintf(line + length, sizeof line - length, " %s", value->data.string);
        PMIX_VALUE_RELEASE(value);
    }
    puts(line);
}

int main(void)
{
    pmix_proc_t me;

    must(PMIx_Init(&me, NULL, 0), "PMIx_Init");
    PMIX_LOAD_PROCID(&everyone, me.nspace, PMIX_RANK_WILDCARD);
    publish_host();
    exchange();
    print_hosts(me.rank, get_size());
    must(PMIx_Finalize(NULL, 0), "PMIx_Finalize");
    return 0;
}
