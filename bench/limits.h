/*  limits.h - what the machine can do at best; all benches measure themselves against it.  */
#ifndef LIMITS_H
#define LIMITS_H
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#ifndef LEMON_H
#include "../lemon.h"
#endif

enum { MAX_THREADS = 2 };

double now(void);                                                  /* seconds of a clock that never goes back */
double limits_peak(lemon_isa isa, int threads, double seconds);    /* multiply-adds in registers, GFLOP/s */
double limits_read(lemon_isa isa, int threads, size_t bytes, double seconds);  /* GB/s; each thread reads `bytes` */
#endif
