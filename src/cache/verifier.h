// What stands between a fill and its folios' being uptodate, for files whose bytes are verified (fs-verity).
// Guarantees: R2, V1.
//
// A mapping has a verifier or none, from before its first folio to after its last. Each of its fills has a check:
//
//   folios inserted, requests planned --begin--> check --send--> hash reads under way, then the data's
//   all of both done --verify--> each folio good (uptodate) or not (unfilled)
//
// A fill that waits runs all of it on its own thread. One that does not (readahead, asynchronous reads) is a
// PendingFill: its last completion hands it to the verifier, which has it run by a thread that may spend time on it, or
// by a reader that waits for one of its folios.
// Races, and what closes each:
//   a check needs hashes that another fill is reading     it waits for that one (or is set aside until it is done),
//                                                         having settled all hashes of its own that come before those:
//                                                         waits go one way only, towards the root (fs/verity.h)
//   a fill's own completion runs it to its end meanwhile  run_later is the last thing that the completion does
#pragma once

#include <cstddef>
#include <memory>

#include "cache/folio.h"
#include "quire/result.h"

namespace quire {

class FillBatch;

// Of one fill. Thread safety: one thread at a time.
class FillCheck {
 public:
  virtual ~FillCheck() = default;
  FillCheck() = default;
  FillCheck(const FillCheck&) = delete;
  FillCheck& operator=(const FillCheck&) = delete;

  // Its locks are somebody else's from here on (as FillBatch::detach_locks). Before send().
  virtual void detach_locks() = 0;
  // Are there reads to go with the data's? Then send() submits them; ended(argument) runs once, on quire's I/O thread,
  // when all are done.
  virtual bool has_reads() const = 0;
  virtual void send(void (*ended)(void*), void* argument) = 0;
  // All that was sent and the batch's requests are done. wait: also for what others are reading; else false: not yet,
  // to be called again.
  virtual bool verify(FillBatch& batch, bool wait) = 0;
  // After verify().
  virtual bool good(std::size_t folio) const = 0;
  virtual int errnum() const = 0;  // if any is not
};

// A fill that nobody waits for in line.
class PendingFill {
 public:
  // Verifies, and ends the fill. False: hashes that others read are missing yet. True: it is gone.
  virtual bool try_to_end() = 0;
  PendingFill* next = nullptr;  // the verifier's

 protected:
  ~PendingFill() = default;
};

class FillVerifier {
 public:
  virtual ~FillVerifier() = default;
  // What is verified together is so many pages, aligned to their number: a power of two.
  virtual unsigned unit_pages() const = 0;
  // The batch has its folios and its plan.
  virtual Result<std::unique_ptr<FillCheck>> begin(FillBatch& batch) = 0;
  // All of its reads are done. pages: of the fill. Never waits; the fill may be gone when it returns.
  virtual void run_later(PendingFill& fill, std::size_t pages) = 0;
  // By a reader that is about to wait for this folio's lock: runs what can be run until it is unlocked. No folio or
  // range of this file may be locked by the caller in a way that fills wait for.
  virtual void help(const Folio& folio) = 0;
};

}  // namespace quire
