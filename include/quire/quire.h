/* The C API of quire: POSIX-shaped calls over one coherent page cache.
 *
 * Every call may be made from any thread at any time unless it says otherwise. Calls return -1 or NULL and
 * set errno; quire_error_message() then gives the thread's last error as a sentence. No call is
 * async-signal-safe, none may be left by longjmp or thread cancellation, and a thread must not be parked
 * (by a signal handler that waits) inside one. An invalid pointer is the caller's bug, as with memcpy.
 * A pointer of any call may lead into a mapped view of any file of this process, that of the call included: EFAULT
 * where the view, its file or the device ends before the first byte; reads and writes count up to there.
 * Offsets and lengths are in bytes. After fork the child gets an error (ENOTRECOVERABLE) from every call.
 */
#ifndef QUIRE_QUIRE_H
#define QUIRE_QUIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#if defined(__GNUC__)
#define QUIRE_API __attribute__((visibility("default")))
#else
#define QUIRE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct quire_cache quire_cache;
typedef struct quire_file quire_file;

/* Options of a cache. Set struct_size to sizeof(quire_options); a zero field means its default. */
typedef struct quire_options {
  size_t struct_size;
  size_t memory;     /* bytes for folios and their metadata; default a quarter of the machine's memory */
  unsigned io_depth; /* requests in flight at the device for asynchronous work (of one file until they are 4 MiB), and
                        as many of submitted direct calls; default 128 */
  unsigned flags;    /* QUIRE_OPT_* */
} quire_options;

/* quire_options.flags: use preadv/pwritev instead of io_uring. */
#define QUIRE_NO_IO_URING 0x1u
/* quire_options.flags: open host files without O_DIRECT (through the host's own cache). */
#define QUIRE_NO_DIRECT 0x2u
/* quire_options.flags: let other processes of this user, and root, watch this cache, by `quire top PID` and `quire
 * residency PID FILE` or through quire/published.h. Costs a thread, which wakes four times a second, a page of memory
 * and three descriptors; hits cost nothing more. Nothing is left behind when the process ends, however it ends. */
#define QUIRE_PUBLISH 0x4u
/* quire_options.flags: leave SIGBUS alone. Else the first quire_mmap of the process installs a handler, which only
 * notes for quire_error_message what a SIGBUS in a view was about, and then does what the program had set before, be it
 * a handler or the default. */
#define QUIRE_NO_SIGNAL_HANDLER 0x8u
/* quire_options.flags: for comparisons only. Hash blocks of verified files are read when the data that needs them has
 * come, one after the other, instead of along with it. */
#define QUIRE_HASHES_AT_COMPLETION 0x10u

/* quire_cache_destroy flags: drop what could not be written back. */
#define QUIRE_DISCARD 0x1u

/* The calling thread's last error: what went wrong, to which file and offset, and what to do. Never NULL;
 * valid until the thread's next failing call. */
QUIRE_API const char* quire_error_message(void);

/* Makes a cache; NULL options mean defaults. Errors: EINVAL (memory too small to work: the message says how
 * much is needed; unknown flags), ENOMEM, EMFILE. */
QUIRE_API quire_cache* quire_cache_create(const quire_options* options);

/* Writes back and flushes, then frees. On -1 nothing is freed: call again, or pass QUIRE_DISCARD, which also unmaps
 * views and drops requests that are not reaped (their callbacks do not run). Errors: EBUSY while files are open, views
 * mapped or requests not reaped, EIO/ENOSPC from writeback. No other call on this cache may be running. */
QUIRE_API int quire_cache_destroy(quire_cache* cache, unsigned flags);

/* Changes the memory given to the cache, while it is in use: to at most 64 times what it was made with, and the
 * machine's memory. Growing takes effect at once. Shrinking writes back and drops what no longer fits, and waits for
 * that some seconds at most: what is in use longer, or cannot be written back, follows when it can. The limits that are
 * parts of the memory (largest atomic operation, dirty bytes, readahead) change with it. Errors: EINVAL (too small to
 * work, too large; nothing has changed). */
QUIRE_API int quire_cache_resize(quire_cache* cache, size_t memory);

/* Opens a regular file or block device; flags and mode as open(2). The file is locked against other writers
 * (other processes, and other caches of this one): EBUSY. Also: EISDIR, EINVAL (FIFO, socket, character
 * device, O_PATH), and open(2)'s own errors. O_TRUNC is done after the lock is held. O_DIRECT: reads and writes go
 * between the device and the caller's memory, past the cache, and see what it holds; any alignment is taken, what is
 * not made of whole blocks, or meets what is in the cache, goes through it and onto the device. A direct write that
 * fails leaves each of its blocks old, new or torn, or, where it went through the cache, stands there to be written
 * again. */
QUIRE_API quire_file* quire_open(quire_cache* cache, const char* path, int flags, mode_t mode);

/* Opens a file for which fs-verity is on (it has a sidecar, FILE.verity), to read (flags: O_RDONLY and what goes with
 * it), if it is what the caller names: digest_hex, the file's digest as `quire verity measure` or `fsverity digest`
 * print it ("sha256:HEX", "sha512:HEX", or HEX alone); cert_path, a file of certificates in PEM, or one in DER, of
 * which one must have signed the digest. Either may be NULL, not both. Every byte that is read is verified against it,
 * by whichever call; EIO for what does not, and only for that. quire_open verifies, too, where there is a sidecar, but
 * believes what that says of itself: it detects damage, not a forger who rewrites both files. Opening a file for which
 * fs-verity is on for writing is EPERM. Errors, besides quire_open's: EINVAL (no digest, no certificates, neither
 * given), ENODATA (it has no sidecar), EBADMSG (the sidecar is not sound, or another file's), EKEYREJECTED (another
 * digest, not signed, or not by them), EBUSY (open here since before fs-verity was turned on). */
QUIRE_API quire_file* quire_open_verified(quire_cache* cache, const char* path, int flags, const char* digest_hex,
                                          const char* cert_path);

/* Opens the file behind fd, with the access mode that fd has; takes a duplicate, fd stays the caller's. */
QUIRE_API quire_file* quire_fdopen(quire_cache* cache, int fd);

/* Closes a handle; the last writer of a file writes back and flushes first. On -1 the handle stays open and
 * no dirty byte is lost: call again once the cause is mended, or destroy the cache with QUIRE_DISCARD. */
QUIRE_API int quire_close(quire_file* file);

/* Reads up to count bytes at offset; returns the number read, 0 at or past the end of the file. Atomic (R1)
 * up to min(16 MiB, a quarter of the memory); larger reads may be split at that size. */
QUIRE_API ssize_t quire_pread(quire_file* file, void* buffer, size_t count, off_t offset);

/* Writes count bytes at offset (at the end for O_APPEND handles); returns the number written. Atomic (R1)
 * up to min(16 MiB, a quarter of the memory). Errors: EBADF (not open for writing), EINVAL (negative offset),
 * EFBIG (past the largest offset), EIO (writeback of this file keeps failing at the dirty limit). */
QUIRE_API ssize_t quire_pwrite(quire_file* file, const void* buffer, size_t count, off_t offset);

/* As preadv2/pwritev2. rwf_flags: RWF_NOWAIT (EAGAIN instead of waiting for I/O or locks), RWF_DSYNC,
 * RWF_SYNC, RWF_APPEND, RWF_HIPRI (no effect), RWF_DONTCACHE (0x80: what the call brings into the cache goes again, if
 * nobody else has used it: after a read at once; after a write once it is written back, which is begun soon and which
 * the call does not wait for). Others: EOPNOTSUPP. offset -1 is EINVAL (no file position). */
QUIRE_API ssize_t quire_preadv2(quire_file* file, const struct iovec* iov, int iovcnt, off_t offset, int rwf_flags);
QUIRE_API ssize_t quire_pwritev2(quire_file* file, const struct iovec* iov, int iovcnt, off_t offset, int rwf_flags);

/* Sets the size; bytes between the old and a larger new size read as zero. */
QUIRE_API int quire_ftruncate(quire_file* file, off_t size);

/* Writes back and makes durable (D1). Reports an earlier failed writeback once per handle; what failed stays
 * dirty and a later call tries again. */
QUIRE_API int quire_fsync(quire_file* file);
QUIRE_API int quire_fdatasync(quire_file* file);

/* As sync_file_range(2): flags is 0 or a union of SYNC_FILE_RANGE_WAIT_BEFORE (waits for what of the range is being
 * written), _WRITE (writes back what is dirty: begins it, or with _WAIT_AFTER does it) and _WAIT_AFTER; length 0 means
 * to the end. Nothing is flushed: it makes no byte durable, quire_fdatasync does. Errors: EINVAL (negative offset or
 * length, other flags); with both _WRITE and _WAIT_AFTER those of the writing, which a later sync reports as well. */
QUIRE_API int quire_sync_file_range(quire_file* file, off_t offset, off_t length, unsigned flags);

/* As fstat(2), with the size as the cache knows it. */
QUIRE_API int quire_fstat(quire_file* file, struct stat* st);

/* Says how this handle will be used, as posix_fadvise(3), but -1 and errno on failure; length 0 means to the end. It
 * changes no result of any call, and what it starts it does not wait for. NORMAL, SEQUENTIAL (reading ahead starts with
 * the first miss, windows are twice as large), RANDOM (nothing is read ahead) and NOREUSE (a read that is not served by
 * hits alone drops what this handle brought in and read before that place; a write is as one with RWF_DONTCACHE) hold
 * for the whole handle, NOREUSE until NORMAL. WILLNEED starts reading the range, as much as the cache's readahead
 * budget (a quarter of its memory) has left. DONTNEED writes back what is dirty in the range, then drops from it what
 * is clean and idle: whole pages (large folios only as a whole) that this handle itself brought in and no other handle
 * has used; while another handle of the file is, or was, open beside this one, every page that was read again since it
 * came in counts as used by the other, as far as the cache remembers. What was written is clean after a sync only.
 * Errors: EINVAL (negative offset or length, unknown advice). */
QUIRE_API int quire_fadvise(quire_file* file, off_t offset, off_t length, int advice);

/* --- Range operations. Offsets and lengths are in bytes. Each takes effect at one instant (R1): whatever reads and
 * writes run beside it, in any thread, see the file (both files) wholly before or wholly after. Only a long copy, and
 * zeros that a file system cannot make and that are written instead, may be split. On -1 nothing has changed, but
 * where zeros are written instead, or the host itself fails half way (EIO, ENOSPC), a part may be done; no byte that
 * was not written back yet is lost either way. With O_SYNC or O_DSYNC the change is durable on return. An offset or
 * length that passes the largest off_t is refused (EINVAL, where nothing else is said). Two files must be open in one
 * cache, else EXDEV; they may be one and the same handle, or two handles of one file. */

/* As fallocate(2). mode, of linux/falloc.h: 0 (allocate: blocks that read as zero where there are none),
 * FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_UNSHARE_RANGE, the first and the last
 * two also with FALLOC_FL_KEEP_SIZE, without which the file grows to offset + length; FALLOC_FL_COLLAPSE_RANGE,
 * FALLOC_FL_INSERT_RANGE (in whole blocks of the file system). Durable with the next sync. Errors: EINVAL (negative
 * offset, length not above zero; collapse and insert: not in whole blocks, or not inside the file), EOPNOTSUPP (modes
 * that do not go together, or that the file system has not; zeroing always works), EBADF (not open for writing), EFBIG
 * (past the largest offset of the file), ENOSPC, EIO, ENODEV. */
QUIRE_API int quire_fallocate(quire_file* file, int mode, off_t offset, off_t length);

/* The first offset, at or after this one, where data begin, or where a hole does (the end of the file is one), as
 * lseek(2)'s SEEK_DATA and SEEK_HOLE. Bytes written and not yet written back are data; a stretch of zeros may be
 * either. Errors: ENXIO (negative, at or past the end of the file, or no data follow). */
QUIRE_API off_t quire_seek_data(quire_file* file, off_t offset);
QUIRE_API off_t quire_seek_hole(quire_file* file, off_t offset);

/* dst's range shares src's blocks from now on, until one of them is written, as ioctl FICLONERANGE. length 0: to the
 * end of src. Grows dst where it must. Errors: EINVAL (offsets, or an end that is not src's, not at whole blocks; past
 * the end of src; ranges of one file that overlap), EBADF (src not open for reading, dst not for writing or with
 * O_APPEND), EOPNOTSUPP (the file system cannot share), EXDEV (two file systems), EFBIG, ENOSPC, EIO. */
QUIRE_API int quire_clone_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset, size_t length);

/* Compares the ranges and, if their bytes are equal, lets them share src's blocks, as ioctl FIDEDUPERANGE; nothing that
 * changes a byte comes between. Returns how many bytes of the beginning are shared now, which may be fewer than length
 * (a file system's limit): call again for the rest. Errors: EBADE (they differ), EINVAL (not at whole blocks, past the
 * end of either, ranges of one file that overlap), EBADF, EOPNOTSUPP, EXDEV, EIO. */
QUIRE_API ssize_t quire_dedupe_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset,
                                     size_t length);

/* Swaps the contents of two ranges. Errors: EINVAL (not at whole blocks, past the end of either file, ranges of one
 * file that overlap), EBADF (either not open for reading and writing, or with O_APPEND), EOPNOTSUPP (the file system or
 * the kernel has no such operation: XFS made with exchange ranges has, from Linux 6.10), EXDEV, ENOSPC, EIO. */
QUIRE_API int quire_exchange_range(quire_file* a, off_t a_offset, quire_file* b, off_t b_offset, size_t length);

/* Copies, as copy_file_range(2), on any file system and between two. Returns how many bytes were copied, fewer than
 * length where src ends and possibly otherwise (call again for the rest), 0 at or past the end of src. Up to
 * min(16 MiB, a quarter of the memory) are copied as one operation; more may be split at that size. Errors: EBADF (src
 * not open for reading, dst not for writing or with O_APPEND), EINVAL (negative offset, ranges of one file that
 * overlap), EOVERFLOW (offset plus length passes 64 bits), EFBIG, ENOSPC, EIO. */
QUIRE_API ssize_t quire_copy_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset, size_t length);

/* --- Asynchronous calls: submitted by any thread, reaped by any; each takes effect at one instant between its
 * submission and its callback, in no order among themselves. Buffers stay the request's until the callback. What has
 * been submitted happens, whoever exits or closes; a handle is closed once its requests are done, which stay to be
 * reaped. --- */

/* Called inside quire_reap only, holding nothing: it may submit, reap, close. result: a count as of the call that
 * waits, or -errno; after that quire_error_message() says why. */
typedef void (*quire_completion_fn)(void* arg, ssize_t result);

/* Return 0, and the rest comes through `done`; or -1, and nothing was submitted: EBADF, EINVAL, EAGAIN (eight times
 * io_depth requests are submitted and not yet reaped: reap some), ENOMEM. */
QUIRE_API int quire_submit_pread(quire_file* file, void* buffer, size_t count, off_t offset, quire_completion_fn done,
                                 void* arg);
QUIRE_API int quire_submit_pwrite(quire_file* file, const void* buffer, size_t count, off_t offset,
                                  quire_completion_fn done, void* arg);
QUIRE_API int quire_submit_fsync(quire_file* file, quire_completion_fn done, void* arg);

/* Runs the callbacks of requests that are done, at most max, in the order in which they became so; waits until at least
 * min of them ran or none is left to wait for. Returns how many ran, or -1: EINVAL (min > max). Several threads may
 * reap. The copying of what was read falls to who reaps. */
QUIRE_API int quire_reap(quire_cache* cache, unsigned min, unsigned max);

/* A descriptor that polls readable while there is something to reap; made by the first call, closed with the cache.
 * Poll it only: reading it is quire_reap's. -1: EMFILE, ENFILE, ENOMEM. */
QUIRE_API int quire_eventfd(quire_cache* cache);

/* --- Mapped views: the cached file itself as memory. What a write of quire's stores, the next load sees, and the other
 * way round; each load and store counts by itself, so a read beside stores may mix them. A view may reach past the end
 * of the file and grows with it; a load or store past the last page of the file, of a page that cannot be read, or,
 * near the limit on dirty pages, a store to a file that cannot be written back, raises SIGBUS in that thread only,
 * whatever signals it blocks (in a system call of the host's: EFAULT). After an error the page is tried again a second
 * later. What is stored past the end of the file in its last page is no part of it, and goes. Memory of a view that the
 * kernel was told to write to later (O_DIRECT reads into it, RDMA) may change after it was written back, and that
 * change be lost. A view keeps its file open, and locked, after quire_close. Nothing
 * but these calls may change its mapping (no mprotect, mremap, munmap, madvise); a forked child has no views. Views
 * need Linux 5.19 and userfaultfd; for an ordinary user whom vm.unprivileged_userfaultfd forbids it, system calls of
 * the host's on parts of a view that are not resident fail with EFAULT. */

/* Shared; prot: PROT_READ, or PROT_READ | PROT_WRITE. The address, or MAP_FAILED. Errors: EINVAL (offset negative or
 * no multiple of 4096, length 0, another prot), EACCES (file not open for reading, or for writing where that is asked
 * for), EOVERFLOW, ENOMEM, EPERM or ENOSYS (no userfaultfd), EMFILE. */
QUIRE_API void* quire_mmap(quire_file* file, off_t offset, size_t length, int prot);
/* flags for quire_mmap2: all of it that lies before the end of the file is read and mapped before the call returns,
 * and what cannot be read is its error (EIO and others). Nothing stays resident for that. */
#define QUIRE_MAP_PREFAULT 0x1u
QUIRE_API void* quire_mmap2(quire_file* file, off_t offset, size_t length, int prot, unsigned flags);
/* Unmaps the views in the range, which cuts none of them; where there are none, nothing is done. A thread that still
 * uses one gets SIGSEGV. Errors: EINVAL (address no multiple of 4096, length 0, a view in part); as quire_close where
 * this ends the file's last use: the views are gone all the same, the dirty bytes stay with the cache. */
QUIRE_API int quire_munmap(quire_cache* cache, void* address, size_t length);
/* Makes durable what was stored in the range, as quire_fdatasync. Errors: EINVAL (address no multiple of 4096), ENOMEM
 * (there is no view of this cache), EIO and others from writing back. */
QUIRE_API int quire_msync(quire_cache* cache, void* address, size_t length);

/* Writes the cache's statistics as a JSON object into buffer (at most size bytes, NUL included); returns its
 * length without the NUL, as snprintf. Keys: docs/PERFORMANCE.md. */
QUIRE_API ssize_t quire_stats_json(quire_cache* cache, char* buffer, size_t size);

/* --- Residency: what of a file is in the cache, as runs of whole pages (4096 bytes) in one state. The last run may
 * reach past the end of the file by less than a folio. Any thread, beside any other call: each folio is reported as it
 * was at some instant of the call, different ones at different instants; one that is there throughout is never left
 * out, one that comes or goes meanwhile may be. Takes no lock; nobody waits for it. --- */

/* quire_residency_run.state. dirty, writeback and unflushed bytes are those that are not durable yet. */
enum quire_residency_state {
  QUIRE_RUN_CLEAN = 0,     /* as on the device */
  QUIRE_RUN_DIRTY = 1,     /* newer than on the device */
  QUIRE_RUN_WRITEBACK = 2, /* being written; perhaps changed again meanwhile */
  QUIRE_RUN_UNFLUSHED = 3, /* written; the device has not been flushed since */
  QUIRE_RUN_FILLING = 4,   /* being read, or a reading of it failed */
  QUIRE_RUN_GHOST = 5      /* evicted not long ago and remembered: takes no memory of its own */
};

typedef struct quire_residency_run {
  uint64_t offset; /* bytes; a multiple of the page size, as is length */
  uint64_t length; /* bytes, above 0 */
  uint32_t state;  /* QUIRE_RUN_* */
  uint32_t order;  /* its folios are of 2^order pages each */
} quire_residency_run;

/* Fills runs with up to count of those that end after offset, ascending; returns how many, 0 if nothing is left. The
 * first begins no earlier than the page of offset. If count were found there may be more: call again with the end of
 * the last, whose run the next call's first may continue. Errors: EINVAL (negative offset). */
QUIRE_API ssize_t quire_residency(quire_file* file, off_t offset, quire_residency_run* runs, size_t count);

/* Writes the file's residency as a JSON object into buffer (at most size bytes, NUL included); returns its length
 * without the NUL, as snprintf. {"file": the path as it was opened, "size": bytes, "page_size", "resident_bytes",
 * "dirty_bytes": not durable yet, "runs": [{"offset", "length", "state": "clean" | "dirty" | "writeback" | "unflushed"
 * | "filling" | "ghost", "order"}, ...]}. The length may differ from call to call. Errors: ENOMEM. */
QUIRE_API ssize_t quire_residency_json(quire_file* file, char* buffer, size_t size);

/* quire_residency_draw's formats: JSON as above; lines of text with a bar, a character for so many pages; an SVG image
 * with a strip, coloured by state. */
#define QUIRE_DRAW_JSON 0
#define QUIRE_DRAW_TEXT 1
#define QUIRE_DRAW_SVG 2

/* Draws count runs, ascending, of a file of so many bytes: those of quire_residency, or of another process. name is
 * that of the file, for titles; characters that the format cannot hold are replaced. Buffer, size and value as for
 * quire_residency_json. Errors: EINVAL (no such format; runs not ascending, without length or of no known state),
 * ENOMEM. */
QUIRE_API ssize_t quire_residency_draw(const char* name, uint64_t file_size, const quire_residency_run* runs,
                                       size_t count, int format, char* buffer, size_t size);

/* --- fs-verity: Linux's format, for files on any file system. What Linux keeps behind the end of the file, hash tree
 * and descriptor, lies in a file FILE.verity beside FILE (beside what a symbolic link leads to), which is never
 * trusted: the digest of a file is what it is worth. While it is there quire opens FILE to read only, and verifies what
 * is read. Any thread. path: of a regular file; EISDIR, EINVAL else, ENOENT too where the file has no name any more,
 * and the errors of open(2) for it and its sidecar. A null path is EINVAL. --- */

/* Set struct_size to sizeof(quire_verity_options); a zero field means its default. */
typedef struct quire_verity_options {
  size_t struct_size;
  const char* hash_alg; /* "sha256" (default) or "sha512" */
  unsigned block_size;  /* bytes, a power of two from 1024 to 65536; default 4096 */
  const void* salt;     /* salt_size bytes, at most 32, hashed before each block */
  size_t salt_size;
  const void*
      signature; /* of the file's digest, as `fsverity sign` makes it (detached PKCS#7, DER); kept, not checked */
  size_t signature_size;                                      /* bytes, at most 16128 */
  void (*progress)(void* arg, uint64_t done, uint64_t total); /* bytes; called in this thread, now and then */
  void* arg;
} quire_verity_options;

/* Turns fs-verity on: reads the file once, hashing it on several threads, and makes FILE.verity, durable and whole or
 * not at all, whatever happens meanwhile. Who reads FILE in another cache goes on without verification until closing
 * it. NULL options mean defaults. Errors: EEXIST (it is on already), ETXTBSY (open for writing in this cache), EBUSY
 * (open in this cache to read: it would go on without verification; open for writing in another cache; changed or
 * opened meanwhile), EACCES, EPERM, EROFS (no permission to write the file), EINVAL (options), EMSGSIZE (salt or
 * signature too long), EBADMSG (a malformed signature), ENOSPC, EIO, ENOMEM, EAGAIN. */
QUIRE_API int quire_verity_enable(quire_cache* cache, const char* path, const quire_verity_options* options);

/* Bytes that hold any digest as text, NUL included: "sha512:" and 128 digits. */
#define QUIRE_DIGEST_MAX 136

/* Writes the file's digest as its sidecar has it: "sha256:HEX" or "sha512:HEX", and a NUL. What the bytes are, it does
 * not look at. Errors: ERANGE (the digest and its NUL do not fit into size bytes), ENODATA (fs-verity is not on: there
 * is no sidecar), EBADMSG (the sidecar is damaged, or another file's). */
QUIRE_API int quire_verity_measure(const char* path, char* digest, size_t size);

/* What quire_verity_status tells. Set struct_size to sizeof(quire_verity_info) before. */
typedef struct quire_verity_info {
  size_t struct_size;
  unsigned enabled;    /* 1, or 0: there is no sidecar, and the rest is zeros */
  unsigned block_size; /* bytes */
  char hash_alg[16];
  char digest[QUIRE_DIGEST_MAX];
  char root_hash[QUIRE_DIGEST_MAX]; /* written as a digest is */
  unsigned char salt[32];
  unsigned salt_size;      /* bytes */
  unsigned signature_size; /* bytes; 0: unsigned */
  uint64_t file_size;      /* bytes */
  uint64_t tree_size;      /* bytes */
} quire_verity_info;

/* Errors: EINVAL (struct_size), EBADMSG (the sidecar is damaged, or another file's). */
QUIRE_API int quire_verity_status(const char* path, quire_verity_info* info);

/* quire_verity_bad_block.kind */
#define QUIRE_BAD_DATA 0       /* a block of the file */
#define QUIRE_BAD_HASH 1       /* a block of the hash tree */
#define QUIRE_BAD_UNVERIFIED 2 /* a range of the file that cannot be verified: a block of the tree over it is bad */

typedef struct quire_verity_bad_block {
  uint32_t kind;
  int32_t error;        /* 0, or the errno of reading it */
  uint64_t offset;      /* bytes: in the file, for QUIRE_BAD_HASH in the sidecar */
  uint64_t length;      /* bytes */
  uint64_t hash_offset; /* for QUIRE_BAD_UNVERIFIED: of the bad block of the tree, in the sidecar */
  const char* expected; /* digests, as text; NULL where there is none; valid during the call only */
  const char* found;
} quire_verity_bad_block;

/* Set struct_size to sizeof(quire_verity_check_options); a zero field means that nothing is asked for. Callbacks run in
 * the calling thread and may call quire. */
typedef struct quire_verity_check_options {
  size_t struct_size;
  const char* digest;       /* that the file must have: "sha256:HEX", "sha512:HEX", or HEX alone */
  const char* certificates; /* path of certificates (PEM, or one in DER) of which one must have signed the digest */
  void (*bad_block)(void* arg, const quire_verity_bad_block* block);
  void (*progress)(void* arg, uint64_t done, uint64_t total); /* bytes of the file */
  void* arg;
} quire_verity_check_options;

/* Set struct_size to sizeof(quire_verity_counts) before. */
typedef struct quire_verity_counts {
  size_t struct_size;
  uint64_t data_blocks; /* of the file */
  uint64_t hash_blocks; /* of its tree */
  uint64_t bad_data_blocks;
  uint64_t bad_hash_blocks;
  uint64_t unverified_blocks; /* of the file, under bad_hash_blocks */
  char digest[QUIRE_DIGEST_MAX];
} quire_verity_counts;

/* Holds every block of the file and its hash tree, read from the disk, against the sidecar's digest, on several
 * threads; tells of each that does not have its digest, and goes on. Without a digest or certificates only damage is
 * found: who rewrites file and sidecar is not. options and counts may be NULL. Errors: EIO (there are bad blocks;
 * counts tells how many), ENODATA (fs-verity is not on), EBADMSG (the sidecar's header is damaged, or another file's;
 * the signature is malformed), EKEYREJECTED (another digest; not signed, or not by these), EINVAL (digest,
 * certificates, struct_size), EBUSY (the file becomes shorter meanwhile), ENOMEM, EAGAIN. With any but EIO counts is as
 * it was. */
QUIRE_API int quire_verity_check(const char* path, const quire_verity_check_options* options,
                                 quire_verity_counts* counts);

#ifdef __cplusplus
}
#endif

#endif /* QUIRE_QUIRE_H */
