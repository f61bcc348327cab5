// Clang thread-safety annotations (-Wthread-safety); nothing to other compilers.
#pragma once

#if defined(__clang__)
#define QUIRE_TSA(x) __attribute__((x))
#else
#define QUIRE_TSA(x)
#endif

#define CAPABILITY(name) QUIRE_TSA(capability(name))
#define SCOPED_CAPABILITY QUIRE_TSA(scoped_lockable)
#define GUARDED_BY(lock) QUIRE_TSA(guarded_by(lock))
#define PT_GUARDED_BY(lock) QUIRE_TSA(pt_guarded_by(lock))
#define REQUIRES(...) QUIRE_TSA(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) QUIRE_TSA(requires_shared_capability(__VA_ARGS__))
#define ACQUIRE(...) QUIRE_TSA(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) QUIRE_TSA(acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) QUIRE_TSA(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) QUIRE_TSA(release_shared_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) QUIRE_TSA(try_acquire_capability(__VA_ARGS__))
#define EXCLUDES(...) QUIRE_TSA(locks_excluded(__VA_ARGS__))
#define ASSERT_CAPABILITY(lock) QUIRE_TSA(assert_capability(lock))
#define RETURN_CAPABILITY(lock) QUIRE_TSA(lock_returned(lock))
#define NO_THREAD_SAFETY_ANALYSIS QUIRE_TSA(no_thread_safety_analysis)
