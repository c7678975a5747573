/* A wall clock that jumps, preloaded into a process under test: the real one plus an offset that a test sets.
 *
 * The offset, in nanoseconds, lies in a file that is mapped (TESTKIT_WALL_CLOCK), so that a jump is seen at once and
 * whole. Monotonic clocks stay right. Waiting until a time of the wall clock (cnd_timedwait, which librdkafka uses) takes
 * longer or shorter when the clock jumps meanwhile, as the kernel has it when somebody sets the time.
 *
 * Why not libfaketime: it does not know cnd_timedwait, so that a wait of 20 ms lasts as long as the clock is ahead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
/* How soon a waiting thread looks whether the clock has jumped. */
#define SLICE (SECOND / 20)

typedef int (*clock_gettime_t)(clockid_t, struct timespec *);
typedef int (*cnd_timedwait_t)(cnd_t *, mtx_t *, const struct timespec *);

static _Atomic long long nowhere;
static _Atomic long long *offset = &nowhere;
static clock_gettime_t real_clock_gettime;
static cnd_timedwait_t real_cnd_timedwait;

__attribute__((constructor)) static void begin(void) {
    real_clock_gettime = (clock_gettime_t)dlsym(RTLD_NEXT, "clock_gettime");
    real_cnd_timedwait = (cnd_timedwait_t)dlsym(RTLD_NEXT, "cnd_timedwait");
    const char *path = getenv("TESTKIT_WALL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
    close(file);
}

static long long real_now(void) {
    struct timespec now;
    /* Somebody may ask before this library has begun. */
    if (!real_clock_gettime) real_clock_gettime = (clock_gettime_t)dlsym(RTLD_NEXT, "clock_gettime");
    real_clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static struct timespec split(long long nanoseconds) {
    struct timespec time = {.tv_sec = nanoseconds / SECOND, .tv_nsec = nanoseconds % SECOND};
    return time;
}

static long long now(void) { return real_now() + atomic_load(offset); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) {
        if (!real_clock_gettime) real_clock_gettime = (clock_gettime_t)dlsym(RTLD_NEXT, "clock_gettime");
        return real_clock_gettime(clock, time);
    }
    *time = split(now());
    return 0;
}

int timespec_get(struct timespec *time, int base) {
    if (base != TIME_UTC) return 0;
    *time = split(now());
    return base;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec split_now = split(now());
    time->tv_sec = split_now.tv_sec;
    time->tv_usec = split_now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    time_t seconds = now() / SECOND;
    if (out) *out = seconds;
    return seconds;
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    long long left = until->tv_sec * SECOND + until->tv_nsec - now();
    long long slice = left < SLICE ? left : SLICE;
    struct timespec end = split(real_now() + (slice > 0 ? slice : 0));
    int outcome = real_cnd_timedwait(condition, mutex, &end);
    /* Time is left: whoever waits is woken for nothing, as may always happen, and waits on. */
    return outcome == thrd_timedout && left > slice ? thrd_success : outcome;
}
