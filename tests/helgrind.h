/*  helgrind.h: atomics as a mutex, for helgrind, which knows locks and no atomics: what an atomic orders, the mutex orders too
    (and more: weak orders are the thread sanitizer's business).  Included before all else. */
#include <pthread.h>
static pthread_mutex_t helgrind_lock = PTHREAD_MUTEX_INITIALIZER;
#define HELGRIND_LOCKED(type, act) __extension__({ type locked_result; \
    pthread_mutex_lock(&helgrind_lock); locked_result = (act); pthread_mutex_unlock(&helgrind_lock); locked_result; })
#define __atomic_load_n(p, order) HELGRIND_LOCKED(__typeof__(*(p) + 0), *(p))
#define __atomic_store_n(p, v, order) ((void)HELGRIND_LOCKED(__typeof__(*(p) + 0), *(p) = (v)))
#define __atomic_add_fetch(p, v, order) HELGRIND_LOCKED(__typeof__(*(p) + 0), *(p) += (v))
#define __atomic_sub_fetch(p, v, order) HELGRIND_LOCKED(__typeof__(*(p) + 0), *(p) -= (v))
#define __atomic_exchange_n(p, v, order) __extension__({ __typeof__(*(p) + 0) locked_old; \
    pthread_mutex_lock(&helgrind_lock); locked_old = *(p); *(p) = (v); pthread_mutex_unlock(&helgrind_lock); locked_old; })
#define __atomic_compare_exchange_n(p, old, v, weak, order, other) \
    HELGRIND_LOCKED(int, *(p) == *(old) ? (*(p) = (v), 1) : (*(old) = *(p), 0))
