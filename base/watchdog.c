/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"

struct shoal_watchdog {
    pthread_t       thread;
    pthread_mutex_t mutex;
    pthread_cond_t  stop;
    bool            stopped;
    struct timespec until;
    void (*expired)(void *argument);
    void *argument;
};

static void *watch(void *argument)
{
    shoal_watchdog_t *dog = argument;
    int               rc  = 0;
    pthread_mutex_lock(&dog->mutex);
    while (!dog->stopped && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&dog->stop, &dog->mutex, &dog->until);
    }
    bool expired = !dog->stopped;
    pthread_mutex_unlock(&dog->mutex);
    if (expired) {
        dog->expired(dog->argument);
    }
    return NULL;
}

static struct timespec time_in(double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double ns = (double)t.tv_nsec + (seconds - (double)(time_t)seconds) * 1e9;
    t.tv_sec += (time_t)seconds + (time_t)(ns / 1e9);
    t.tv_nsec = (long)ns % 1000000000;
    return t;
}

/*
 * Signals are the other threads': a handler must not run here, in a thread that nobody waits for.
 */
static int start_thread(shoal_watchdog_t *dog)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&dog->thread, NULL, watch, dog);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

shoal_watchdog_t *shoal_watchdog_start(double seconds, void (*expired)(void *argument),
                                       void  *argument)
{
    shoal_watchdog_t  *dog = calloc(1, sizeof(*dog));
    pthread_condattr_t monotonic;
    if (dog == NULL) {
        shoal_warn("no memory for a watchdog: what comes next has no deadline");
        return NULL;
    }
    dog->until    = time_in(seconds);
    dog->expired  = expired;
    dog->argument = argument;
    pthread_mutex_init(&dog->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&dog->stop, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (start_thread(dog) != 0) {
        shoal_warn("no thread for a watchdog: what comes next has no deadline");
        free(dog);
        return NULL;
    }
    return dog;
}

void shoal_watchdog_stop(shoal_watchdog_t *dog)
{
    if (dog == NULL) {
        return;
    }
    pthread_mutex_lock(&dog->mutex);
    dog->stopped = true;
    pthread_cond_signal(&dog->stop);
    pthread_mutex_unlock(&dog->mutex);
    pthread_join(dog->thread, NULL);
    pthread_cond_destroy(&dog->stop);
    pthread_mutex_destroy(&dog->mutex);
    free(dog);
}
