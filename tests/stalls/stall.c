/* Makes threads stand still, as a busy machine does: where they look at the clock, before and after they wait or wake, and where they
 * begin. To be preloaded; see run.sh.
 *
 *   STALL_SEED    which ones
 *   STALL_IN      one of so many calls
 *   STALL_MS      up to so many milliseconds, seldom so long; ten times for each thread
 *   STALL_TOTAL   so many milliseconds for all of the process, then no more
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed = 1, one_in = 15, most = 500;
static long left = 4000 * 1000L; /* microseconds */
static __thread int times = 10;
static __thread uint64_t state;

static long (*real_syscall)(long, ...);
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
    seed = setting("STALL_SEED", getpid());
    one_in = setting("STALL_IN", one_in);
    most = setting("STALL_MS", most);
    left = (long)setting("STALL_TOTAL", 4000) * 1000;
    real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    real_pthread_create =
        (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
}

/* xorshift, for each thread its own */
static uint64_t below(uint64_t n) {
    if (!state) state = (seed * 0x9E3779B97F4A7C15u) ^ ((uint64_t)real_syscall(SYS_gettid) << 17) ^ 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % n;
}

static void stand_still(uint64_t at_most_ms) {
    uint64_t us = below((at_most_ms * 1000 >> 2 * below(4)) + 1);
    if (--times < 0 || __atomic_sub_fetch(&left, (long)us, __ATOMIC_RELAXED) < 0) return;
    int error = errno;
    struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};
    nanosleep(&time, NULL);
    errno = error;
}

static void perhaps(void) {
    if (real_syscall && times > 0 && below(one_in) == 0) stand_still(most);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_clock_gettime) begin();
    if (clock == CLOCK_MONOTONIC) perhaps();
    int result = real_clock_gettime(clock, time);
    if (clock == CLOCK_MONOTONIC) perhaps();
    return result;
}

/* What std waits and wakes by. */
long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (!real_syscall) begin();
    if (number == SYS_futex) perhaps();
    long result = real_syscall(number, a, b, c, d, e, f);
    if (number == SYS_futex) perhaps();
    return result;
}

struct start {
    void *(*run)(void *);
    void *with;
};

static void *run(void *pointer) {
    struct start start = *(struct start *)pointer;
    free(pointer);
    if (below(4) == 0) stand_still(150);
    return start.run(start.with);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*f)(void *), void *with) {
    if (!real_pthread_create) begin();
    struct start *start = malloc(sizeof *start);
    if (!start) return EAGAIN;
    *start = (struct start){f, with};
    int result = real_pthread_create(thread, attr, run, start);
    if (result != 0) free(start);
    else if (below(8) == 0) stand_still(150);
    return result;
}
