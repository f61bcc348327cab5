/* What a cache made with QUIRE_PUBLISH shows to other processes: one page of counters, and where to ask for more.
 *
 * The page is a memfd named QUIRE_PUBLISHED_NAME, one for each such cache of a process, found among the links of
 * /proc/PID/fd ("/memfd:quire-stats (deleted)"). A memfd, because it has no name in any file system: it goes with its
 * process, killed or not, and leaves nothing to clean up; and because the kernel itself lets nobody open
 * /proc/PID/fd/N but processes of the same user (that may trace PID) and root. It is sealed: its size never changes,
 * and nobody but its maker can write it. Open it with O_RDONLY, map sizeof(quire_published) bytes of it with
 * MAP_SHARED, and take snapshots with quire_published_read.
 *
 * The maker's thread writes it anew four times a second, and once more when the cache ends. All fields are of the
 * machine's byte order and, but for version and size, 64 bits wide; fields are only ever added, at the end.
 *
 * `socket` is the name of a Unix stream socket in the abstract namespace (of the maker's network namespace) that
 * answers processes of the same effective user and root: others get an error. A request is one line,
 *
 *   residency DEVICE INODE        numbers in decimal, DEVICE as st_dev of stat(2)
 *
 * and so is every part of the answer, after which the connection ends:
 *
 *   file SIZE PAGE_SIZE HANDLES   bytes, bytes, how often the file is open (0: its folios are kept for the next open)
 *   run OFFSET LENGTH STATE ORDER quire_residency_run, any number of them; STATE in words
 *   end
 *
 * or, instead of any of these, `error ERRNO`: EINVAL (no such request), EPERM (another user), ENOENT (this cache has no
 * such file), EBUSY (its file table was in use for too long), ESTALE (the file left the cache meanwhile). A client that
 * neither writes nor reads for a second is cut off. */
#ifndef QUIRE_PUBLISHED_H
#define QUIRE_PUBLISHED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUIRE_PUBLISHED_NAME "quire-stats"
#define QUIRE_PUBLISHED_MAGIC UINT64_C(0x7374617473757100) /* written last: 0 until the page is complete */
#define QUIRE_PUBLISHED_VERSION 1u

typedef struct quire_published {
  /* Written once. */
  uint64_t magic;
  uint32_t version; /* a reader refuses another than it knows */
  uint32_t size;    /* bytes of this structure that the maker has; a reader of more fields takes the rest as 0 */
  uint64_t cache;   /* its number in the process, from 1, never used again */
  uint64_t made_ns; /* CLOCK_MONOTONIC when it was made: counts begin at 0 here */
  char socket[32];  /* the name without the leading NUL byte; ends with a NUL */
  /* Odd while the fields below change. */
  uint64_t sequence;
  uint64_t updated_ns; /* CLOCK_MONOTONIC of this snapshot */
  uint64_t ended;      /* 1: the cache is gone, and this snapshot is its last */
  /* States. */
  uint64_t memory_bytes;           /* given to the cache */
  uint64_t used_bytes;             /* folios and metadata */
  uint64_t folio_bytes;            /* folios alone */
  uint64_t dirty_bytes;            /* not durable yet: dirty, being written, or written and not flushed */
  uint64_t background_dirty_bytes; /* where the flusher starts */
  uint64_t dirty_limit_bytes;      /* where writers wait */
  /* Counts since the cache was made. */
  uint64_t hits;       /* reads that the fast path served */
  uint64_t slow_reads; /* all others */
  uint64_t fills;      /* folios read in */
  uint64_t zero_fills; /* folios that needed no reading */
  uint64_t evictions;  /* folios dropped for memory */
  uint64_t refaults;   /* fills of pages that were evicted not long before */
  uint64_t writeback_folios;
  uint64_t writeback_bytes;
  uint64_t writeback_errors;
  uint64_t throttled; /* waits at the dirty limit */
  uint64_t device_read_bytes;
  uint64_t device_write_bytes;
} quire_published;

/* Copies the page into *out; `mapped` is at least sizeof(quire_published) bytes. 1: *out is the counters as one update
 * wrote them; 0: the page is no such page (of this version), or it was never at rest. Any thread. */
static inline int quire_published_read(const quire_published* mapped, quire_published* out) {
  const uint64_t* from = (const uint64_t*)(const void*)mapped;
  uint64_t words[sizeof(quire_published) / sizeof(uint64_t)];
  int attempt;
  size_t i;
  if (__atomic_load_n(&mapped->magic, __ATOMIC_ACQUIRE) != QUIRE_PUBLISHED_MAGIC) return 0;
  if (__atomic_load_n(&mapped->version, __ATOMIC_RELAXED) != QUIRE_PUBLISHED_VERSION) return 0;
  for (attempt = 0; attempt < 100000; ++attempt) {
    const uint64_t before = __atomic_load_n(&mapped->sequence, __ATOMIC_ACQUIRE);
    if ((before & 1) != 0) continue;
    /* Acquire: the sequence is looked at again after every one of these. */
    for (i = 0; i < sizeof words / sizeof words[0]; ++i) words[i] = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
    if (__atomic_load_n(&mapped->sequence, __ATOMIC_RELAXED) != before) continue;
    memcpy(out, words, sizeof *out);
    if (out->size < sizeof *out) memset((char*)out + out->size, 0, sizeof *out - out->size);
    return 1;
  }
  return 0;
}

#ifdef __cplusplus
}
#endif

#endif /* QUIRE_PUBLISHED_H */
