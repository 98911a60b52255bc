/* A wrong clock for one process: its time of day is CLOCK_AHEAD_SECONDS ahead of the true time. The
 * monotonic clock, which measures waits, stays right, as on a host whose clock is wrong.
 * libfaketime 0.9.10 cannot do that: with it, sleeps fail or never end.
 *
 *   cc -shared -fPIC -o clock_ahead.so clock_ahead.c -ldl;  LD_PRELOAD=./clock_ahead.so …
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static double ahead_seconds(void) {
  static int known;
  static double seconds;
  if (!known) {
    const char *said = getenv("CLOCK_AHEAD_SECONDS");
    seconds = said ? atof(said) : 0.0;
    known = 1;
  }
  return seconds;
}

static int (*real)(clockid_t, struct timespec *);

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (!real)
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    long long nanoseconds = now->tv_nsec + (long long)(ahead_seconds() * 1e9);
    now->tv_sec += nanoseconds / 1000000000LL;
    now->tv_nsec = nanoseconds % 1000000000LL;
    if (now->tv_nsec < 0) {
      now->tv_nsec += 1000000000L;
      now->tv_sec -= 1;
    }
  }
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec found;
  (void)zone;
  int failed = clock_gettime(CLOCK_REALTIME, &found);
  now->tv_sec = found.tv_sec;
  now->tv_usec = found.tv_nsec / 1000;
  return failed;
}

time_t time(time_t *stored) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (stored)
    *stored = found.tv_sec;
  return found.tv_sec;
}
