// Deliberate mistakes, for tests only: in the sim build one of them can be switched on, and the scheduler has to find
// it (tests/races). In every other build has_defect() is false for the compiler, and nothing is left of it.
#pragma once

#define QUIRE_DEFECTS(X)                \
  X(none)                               \
  X(hit_without_gate_recheck)           \
  X(hit_without_sequence_recheck)       \
  X(hit_without_identity)               \
  X(hit_of_odd_sequence)                \
  X(fast_read_of_odd_sequence)          \
  X(fast_read_without_sequence_recheck) \
  X(fast_read_of_odd_gate)              \
  X(fast_read_without_gate_recheck)     \
  X(fast_read_without_size_recheck)     \
  X(fast_read_without_identity)         \
  X(split_without_odd_sequence)         \
  X(split_despite_references)           \
  X(long_read_trusts_the_order)         \
  X(split_shows_unmade_parts)           \
  X(range_operation_locks_pages_only)   \
  X(migration_without_odd_sequence)     \
  X(migration_despite_references)       \
  X(migration_despite_lock)             \
  X(migration_copies_unlocked)          \
  X(migration_of_state_seen_before)     \
  X(viewed_frame_not_punched)           \
  X(short_read_copies_past_count)       \
  X(edge_zeroed_before_gate)            \
  X(append_size_before_bytes)           \
  X(write_made_even_one_by_one)         \
  X(extender_keeps_old_size)            \
  X(writer_without_folio_lock)          \
  X(reclaim_without_freeze)             \
  X(frames_reserved_under_range_lock)   \
  X(reader_keeps_frames)                \
  X(waiter_without_identity)            \
  X(fill_without_instantiate)           \
  X(fill_uptodate_before_read)          \
  X(cache_dropped_before_backing)       \
  X(half_way_keeps_unflushed)           \
  X(writeback_without_instantiate)      \
  X(writeback_cleans_redirtied)         \
  X(nested_fill_locks_again)            \
  X(flush_without_context)              \
  X(two_files_in_call_order)            \
  X(error_told_to_one_handle)           \
  X(failed_flush_keeps_later_writes)    \
  X(flush_cleans_later_writes)          \
  X(readahead_not_drained)              \
  X(frame_freed_without_grace_period)   \
  X(direct_without_direct_mode)         \
  X(direct_looks_before_it_locks)       \
  X(direct_ignores_folios)              \
  X(direct_range_not_grown)             \
  X(direct_block_not_zeroed)            \
  X(direct_not_decided_again)           \
  X(direct_read_without_direct_mode)    \
  X(direct_unlocks_before_completion)   \
  X(reap_waits_without_a_look)          \
  X(direct_ends_when_reaped)            \
  X(close_does_not_wait)                \
  X(runnable_trusts_its_fill)           \
  X(writeback_leaves_views_open)        \
  X(fault_without_instantiate)          \
  X(window_store_taken_for_clean)       \
  X(reclaim_of_viewed)                  \
  X(stores_not_written_again)           \
  X(view_touched_under_lock)            \
  X(bounce_after_reserve)               \
  X(hashes_read_again_trusted)

namespace quire {

enum class Defect {
#define QUIRE_DEFECT_NAME(name) name,
  QUIRE_DEFECTS(QUIRE_DEFECT_NAME)
#undef QUIRE_DEFECT_NAME
};

#define QUIRE_DEFECT_ONE(name) +1
inline constexpr int kDefects = 0 QUIRE_DEFECTS(QUIRE_DEFECT_ONE);
#undef QUIRE_DEFECT_ONE

#ifdef QUIRE_SIM
inline constinit Defect active_defect = Defect::none;
inline bool has_defect(Defect defect) { return active_defect == defect; }
#else
constexpr bool has_defect(Defect) { return false; }
#endif

}  // namespace quire
