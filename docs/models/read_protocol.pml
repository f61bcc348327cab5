// The read protocol in one model: reads that take no lock, beside writes, range operations, changes of the size, and
// frames that are recycled into another page or another file. Guarantees: R1, R2.
//
// One file of up to four cells (its "bytes"), two to a page; three frames; another file, whose cells nobody may see.
// Two mutators do one operation each, any two of the eight below; the environment evicts and fills; the reader reads
// again and again. Memory is sequentially consistent. Every load and store that another can see is a step of its own,
// but for those that a lock hides. tools/check-model searches all of it, then takes out one check after the other: with
// -DWITHOUT=HIT_PAGE it is the model without that check. README.md says what is left out.

// Wider searches, by hand: -DLONG (reads of the second page alone, too) and -DCHANGES=3.
#ifndef CHANGES
#define CHANGES 2  // evictions and fills, at most
#endif

// --- what can be taken out (the names are tools/check-model's list) ---

// Checks of a short hit, as in src/cache/read_hit.h.
#define HIT_GATE_ODD 1          // a range operation is half way
#define HIT_SIZE 2              // past the end
#define HIT_SEQUENCE_ODD 3      // being filled, written or removed, or free
#define HIT_PAGE 4              // another page's
#define HIT_MAPPING 5           // another file's, or nobody's
#define HIT_SEQUENCE_RECHECK 6  // written, removed or recycled since
#define HIT_GATE_RECHECK 7      // a range operation came in between
// Checks of every other read, as in src/cache/buffered_read.cc.
#define GATE_ODD 8            // a range operation is half way here
#define CLIP 9                // past the end
#define SEQUENCE_ODD 10       // being filled, written or removed
#define SEQUENCE_RECHECK 11   // inside one page: written or removed since
#define FIRST_RECHECK 12      // over two pages: the first written or removed since
#define SECOND_RECHECK 13     // over two pages: the second written or removed since
#define GATE_RECHECK 14       // a range operation came in between
#define SIZE_RECHECK 15       // the end that the range was clipped to has moved
#define RCU 16                // what keeps a frame that is being copied from its next life
// Rules of those who change something.
#define RULE_SIZE_IN_ODD 17  // an append stores the size inside the odd section
#define RULE_EVEN_LAST 18    // no folio of a write becomes even before the last, and the size, have changed
#define RULE_GATE 19         // who changes folios one by one, or a folio and the size, closes the gate
#define RULE_REMOVED_ODD 20  // a removed folio stays odd until its next life
// Spare: where everything else is in its place, these change no answer (-DLEAN is the model without all of them).
#define FIRST_SPARE 21
#define IDENTITY 21          // of every other read: recycled between lookup and load, which RCU rules out
#define END_GATE_RECHECK 22  // of a read past the end: a range operation came in between
#define END_SIZE_RECHECK 23  // of a read past the end: the end has moved
#define RULE_ODD_FIRST 24    // all folios of a write are odd before the first changes

#ifndef WITHOUT
#define WITHOUT 0
#endif
#ifndef ALSO_WITHOUT
#define ALSO_WITHOUT 0
#endif
#ifdef LEAN
#define has(what) (what != WITHOUT && what != ALSO_WITHOUT && what < FIRST_SPARE)
#else
#define has(what) (what != WITHOUT && what != ALSO_WITHOUT)
#endif

// --- the state ---

// Operations.
#define TRUNCATE_1 0    // to a size inside the first page
#define TRUNCATE_3 1    // to a size inside the second page; grows a shorter file
#define EXCHANGE 2      // both pages get other content
#define COLLAPSE 3      // the first page goes, and the second takes its place
#define WRITE_MANY 4    // cells 1 and 2: two folios, one after the other under the gate
#define WRITE_FEW 5     // cells 0 to 2: two folios, odd together
#define WRITE_SECOND 6  // the second page, one folio; grows a shorter file
#define WRITE_FIRST 7   // the first page, one folio

// Owners of frames.
#define NOBODY 0
#define OURS 1
#define OTHERS 2
#define NONE 3  // no frame

// What a cell holds says who put it there, and where.
#define WRITTEN(who, at) (8 * who + at)
#define INITIAL(at) (32 + at)
#define FOREIGN 64

#define page_of(at) (at / 2)
#define smaller(a, b) (a < b -> a : b)
#define larger(a, b) (a < b -> b : a)

typedef Frame {
  bool odd = true;  // its sequence: free, filling, changing or removed
  byte owner;
  byte page;
  byte cell[2];
  bool locked;
  bool grace  // removed while the reader was in an RCU section that it has not left
};
Frame frame[3];
byte index[2] = NONE;
byte size = 3;
byte disk[4];  // the backing; zeros past the size
bool gate_odd;
byte gate_low;                   // all gates here reach to infinity
bool exclusive[2];               // range lock, by page; the second one's reaches to infinity
bool remove[2], instantiate[2];  // invalidate lock, by page

// The reader's. Sequences never repeat: all that it could learn from one is whether it moved since it was noted.
bool rcu;                   // in a section
byte fa = NONE, fb = NONE;  // the folios that it looks at
bool moved_a, moved_b;      // their sequences have moved since
bool gate_noted, gate_moved;

// --- what is true: the file after each set of operations (bit 0: the first mutator's, bit 1: the second's) ---
// An operation takes effect between taking its range lock and giving it back. So two whose locks overlap took effect in
// the order of their locks, and two that ran side by side commute. size 0: that set, without the rest, never was.
typedef Content {
  byte size;
  byte cell[4]
};
Content truth[4];
byte begun, ended;  // sets of operations
byte known;         // ended, or seen by a read that has returned
byte i, j, k;       // 0 but inside a step

#define writes(op, at) ((op == WRITE_FIRST && at < 2) || (op == WRITE_SECOND && at >= 2) || \
  (op == WRITE_FEW && at < 3) || (op == WRITE_MANY && (at == 1 || at == 2)))

inline apply(op, who, content) {
  if
  :: op >= WRITE_MANY ->
    for (k : 0 .. 3) {
      if
      :: writes(op, k) ->
        content.cell[k] = WRITTEN(who, k);
        content.size = larger(content.size, k + 1)
      :: else
      fi
    }
  :: op == TRUNCATE_1 || op == TRUNCATE_3 ->
    content.size = (op == TRUNCATE_1 -> 1 : 3);
    for (k : content.size .. 3) { content.cell[k] = 0 }
  :: op == EXCHANGE ->
    for (k : 0 .. 3) { content.cell[k] = (k < content.size -> WRITTEN(who, k) : 0) }
  :: op == COLLAPSE ->
    content.size = content.size - 2;
    for (k : 0 .. 1) {
      content.cell[k] = content.cell[k + 2];
      content.cell[k + 2] = 0
    }
  fi
}

inline operation_begins(op, who) {
  for (i : 0 .. 3) {
    if
    :: truth[i].size != 0 && (i & who) == 0 && (i & ended) == ended ->
      j = i | who;
      truth[j].size = truth[i].size;
      for (k : 0 .. 3) { truth[j].cell[k] = truth[i].cell[k] }
      apply(op, who, truth[j])
    :: else
    fi
  }
  i = 0;
  j = 0;
  k = 0;
  begun = begun | who
}

inline operation_ends(who) {
  ended = ended | who;
  known = known | who
}

// --- frames, folios, gate ---

#define is_free(f) (frame[f].owner == NOBODY && !frame[f].locked && !frame[f].grace)
#define any_free (is_free(0) || is_free(1) || is_free(2))
#define is_idle(f) (frame[f].owner != NOBODY && !frame[f].locked)

inline step_sequence(f) {
  d_step {
    frame[f].odd = !frame[f].odd;
    moved_a = moved_a || f == fa;
    moved_b = moved_b || f == fb
  }
}

inline step_gate() {
  d_step {
    gate_odd = has(RULE_GATE) && !gate_odd;
    gate_moved = has(RULE_GATE) && gate_noted
  }
}

// A free frame (one of the first two, if it can be: it has had a life) begins a life: locked and odd.
inline begin_life(f, who, p) {
  f = (is_free(0) -> 0 : (is_free(1) -> 1 : 2));
  if
  :: !frame[f].odd -> step_sequence(f)
  :: else
  fi;
  frame[f].owner = who;
  frame[f].page = p;
  frame[f].locked = true
}

inline begin_change(f) {
  if
  :: !frame[f].odd -> step_sequence(f)
  :: else  // new
  fi
}

// The folio is locked, and unlocked afterwards. Its frame is free after a grace period.
inline begin_removal(f) {
  if
  :: has(RULE_REMOVED_ODD) -> step_sequence(f)
  :: else
  fi
}
inline end_removal(f) {
  d_step {
    if
    :: frame[f].owner == OURS -> index[frame[f].page] = NONE
    :: else
    fi;
    frame[f].owner = NOBODY;
    frame[f].grace = rcu;
    frame[f].locked = false;
    f = NONE
  }
}

// --- the mutators ---

inline take(f, p) {
  f = index[p];
  frame[f].locked = true
}

// The folio of a page, locked; a new one, with the bytes of the backing, where there is none.
inline lock_page(f, p) {
  atomic {
    if
    :: index[p] == NONE && any_free ->
      begin_life(f, OURS, p);
      frame[f].cell[0] = disk[2 * p];
      frame[f].cell[1] = disk[2 * p + 1];
      index[p] = f
    :: index[p] != NONE && !frame[index[p]].locked -> take(f, p)
    fi
  }
}

// The same where there is one, else none.
inline lock_resident(f, p) {
  if
  :: index[p] == NONE
  :: index[p] != NONE && !frame[index[p]].locked -> take(f, p)
  fi
}

inline remove_page(f, p) {
  atomic { lock_resident(f, p) };
  if
  :: f != NONE ->
    begin_removal(f);
    end_removal(f)
  :: else
  fi
}

// Writeback, as early as can be: a folio whose lock is free is clean.
inline unlock_written(f, p) {
  if
  :: f != NONE ->
    disk[2 * p] = frame[f].cell[0];
    disk[2 * p + 1] = frame[f].cell[1];
    frame[f].locked = false;
    f = NONE
  :: else
  fi
}

inline change_backing() {
  for (i : 0 .. 3) {
    if
    :: op == EXCHANGE -> disk[i] = (i < size -> WRITTEN(me, i) : 0)
    :: op == COLLAPSE -> disk[i] = (i < 2 -> disk[i + 2] : 0)
    :: else -> disk[i] = (i < end -> disk[i] : 0)
    fi
  }
}

inline store(f, at) { frame[f].cell[at & 1] = WRITTEN(me, at) }

inline grow(to) { size = larger(size, to) }

#define one_page(op) (op >= WRITE_SECOND || op == TRUNCATE_3)

proctype mutator(byte me; byte op) {
  byte a = NONE, b = NONE;                            // the folios that it has locked
  byte p = (op == WRITE_SECOND || op == TRUNCATE_3);  // the page of a
  byte first, last;                                   // the pages of its range lock
  byte end;                                           // the size that it leaves

  atomic {  // the range lock: to infinity from the smaller of offset and size where the size changes
    if
    :: one_page(op) && size >= 2 && !exclusive[p] ->
      first = p;
      last = p
    :: (!one_page(op) || size < 2) && !exclusive[0] && !exclusive[1] -> last = 1
    fi;
    if
    :: op == COLLAPSE && size <= 2 -> goto refused  // less than a page would be left
    :: else
    fi;
    d_step {
      exclusive[first] = true;
      exclusive[last] = true;
      operation_begins(op, me)
    }
  };

  if
  :: op >= WRITE_SECOND ->
    lock_page(a, p);
    begin_change(a);
    store(a, 2 * p);
    store(a, (2 * p + 1));
    if
    :: has(RULE_SIZE_IN_ODD) ->
      grow(2 * p + 2);
      step_sequence(a)
    :: else ->
      step_sequence(a);
      grow(2 * p + 2)
    fi

  :: op == WRITE_FEW ->
    lock_page(a, 0);
    lock_page(b, 1);
    begin_change(a);
    if
    :: has(RULE_ODD_FIRST) -> begin_change(b)
    :: else
    fi;
    store(a, 0);
    store(a, 1);
    if
    :: !has(RULE_EVEN_LAST) -> step_sequence(a)
    :: else
    fi;
    begin_change(b);
    store(b, 2);
    grow(3);
    if
    :: has(RULE_EVEN_LAST) -> step_sequence(a)
    :: else
    fi;
    step_sequence(b)

  :: op == WRITE_MANY ->
    lock_page(a, 0);
    lock_page(b, 1);
    gate_low = 1;
    step_gate();
    begin_change(a);
    store(a, 1);
    step_sequence(a);
    begin_change(b);
    store(b, 2);
    step_sequence(b);
    grow(3);
    step_gate()

  :: op <= COLLAPSE ->
    atomic {  // the invalidate lock: fills have ended; then the backing, and only then the cache
      !instantiate[first] && !instantiate[last];
      remove[first] = true;
      remove[last] = true;
      d_step {
        end = (op == TRUNCATE_1 -> 1 : (op == TRUNCATE_3 -> 3 : (op == COLLAPSE -> size - 2 : size)));
        change_backing();
        i = 0
      }
    };
    if
    :: op == EXCHANGE || op == COLLAPSE ->
      remove_page(a, 0);
      remove_page(a, 1)
    :: else -> atomic {  // the folio in which the file is to end
        if
        :: end < size -> lock_resident(a, p)
        :: else
        fi
      }
    fi;
    if
    :: end != size ->
      gate_low = smaller(end, size);
      step_gate();
      if
      :: a != NONE ->
        step_sequence(a);
        frame[a].cell[1] = 0;
        step_sequence(a)
      :: else
      fi;
      size = end;
      step_gate()
    :: else
    fi;
    if
    :: op == TRUNCATE_1 -> remove_page(b, 1)
    :: else
    fi
  fi;

  atomic {
    unlock_written(a, p);
    unlock_written(b, 1);
    if
    :: op <= COLLAPSE ->
      remove[first] = false;
      remove[last] = false
    :: else
    fi;
    exclusive[first] = false;
    exclusive[last] = false;
    operation_ends(me)
  };
refused:
  skip
}

// --- what else happens: reclaim, readahead, other readers' fills, the other file ---

#define may_fill(p) (index[p] == NONE && !remove[p])

inline end_fill(f, first, second) {
  atomic {
    frame[f].cell[0] = first;
    frame[f].cell[1] = second;
    step_sequence(f);
    frame[f].locked = false;
    f = NONE
  }
}

proctype environment() {
  byte f = NONE, p, changes;
end_quiet:
  do
  :: atomic {
      changes < CHANGES && (is_idle(0) || is_idle(1) || is_idle(2)) -> changes++;
      if
      :: is_idle(0) -> f = 0
      :: is_idle(1) -> f = 1
      :: is_idle(2) -> f = 2
      fi;
      frame[f].locked = true;
      begin_removal(f)
    };
    end_removal(f)
  :: atomic {
      changes < CHANGES && any_free && (may_fill(0) || may_fill(1)) -> changes++;
      if
      :: may_fill(0) -> p = 0
      :: may_fill(1) -> p = 1
      fi;
      instantiate[p] = true;
      begin_life(f, OURS, p);
      index[p] = f
    };
    atomic {
      end_fill(f, disk[2 * p], disk[2 * p + 1]);
      instantiate[p] = false;
      p = 0
    }
  :: atomic {  // one page of the other file, once at a time
      changes < CHANGES && any_free && frame[0].owner != OTHERS && frame[1].owner != OTHERS &&
        frame[2].owner != OTHERS -> changes++;
      begin_life(f, OTHERS, 0)
    };
    end_fill(f, FOREIGN, FOREIGN + 1)
  od
}

// --- the reader: the two cells of a page, or three across (`at` is 1: all that lies past the first) ---

#define resident(at) (index[page_of(at)] != NONE)
#define settled(at) (!exclusive[page_of(at)] && (!resident(at) || !frame[index[page_of(at)]].odd))
#define cell_of(f, at) frame[f].cell[at & 1]
#define cached(at) (resident(at) -> cell_of(index[page_of(at)], at) : disk[at])
#define wanted (at == 1 -> 3 : 2)
#define clipped(end) (end <= at -> 0 : smaller(end - at, wanted))

// A read that is bound to fail a recheck gives up early (once its bytes are copied, where R2 looks at them): that
// changes no answer, and spares states.
#define hit_doomed ((has(HIT_SEQUENCE_RECHECK) && moved_a) || (has(HIT_GATE_RECHECK) && gate_moved))
#define doomed(recheck) ((has(recheck) && moved_a) || (has(GATE_RECHECK) && gate_moved))
#define doomed_second ((has(SECOND_RECHECK) && moved_b) || (has(GATE_RECHECK) && gate_moved))

#define possible(set) (truth[set].size != 0 && (set & from) == from && (set | begun) == begun)

// R1: the answer, n cells in va, vb and vc, is what the file held at one instant between call and return.
inline answer() {
  d_step {
    i = 0;
    do
    :: possible(i) && n == clipped(truth[i].size) && (n < 1 || va == truth[i].cell[at]) &&
      (n < 2 || vb == truth[i].cell[at + 1]) && (n < 3 || vc == truth[i].cell[at + 2]) -> break
    :: else ->
      i++;
      assert(i < 4)  // R1
    od;
    known = known | i;
    i = 0
  };
  leave()
}

// R2: what a long read stores to the caller's buffer was this file's, even if it is thrown away afterwards. (-DBOUNCED:
// through the stack, where it need not be.)
inline copy_out(to, f, at) {
  to = cell_of(f, at);
#ifndef BOUNCED
  d_step {
    i = 0;
    do
    :: possible(i) && to == truth[i].cell[at] -> break
    :: else ->
      i++;
      assert(i < 4)  // R2
    od;
    i = 0
  }
#endif
}

inline leave_rcu() {
  rcu = false;
  frame[0].grace = false;
  frame[1].grace = false;
  frame[2].grace = false
}

// The call ends; everything noted is forgotten.
inline leave() {
  d_step {
    leave_rcu();
    fa = NONE;
    fb = NONE;
    moved_a = false;
    moved_b = false;
    gate_noted = false;
    gate_moved = false;
    va = 0;
    vb = 0;
    vc = 0;
    n = 0;
    z = 0;
    at = 0;
    from = 0
  };
  goto end_idle
}

// No answer. In quire the call then goes the next way; here that is a call of its own, which asks for more.
inline give_up_if(bad) {
  if
  :: bad -> leave()
  :: else
  fi
}

// The call, and its first load.
inline call(where) {
  at = where;
  from = known;
  gate_noted = true
}

inline call_hit(where) {
  call(where);
  give_up_if(has(HIT_GATE_ODD) && gate_odd);
  goto hit
}

inline call_fast(where) {
  call(where);
  if
  :: has(GATE_ODD) && gate_odd -> goto fast_odd
  :: else -> goto fast
  fi
}

// The slow path: its range lock makes it one step. A folio that is being filled is waited for.
inline read_slow(where) {
  settled(where) && settled((where + 1)) -> call(where);
  n = clipped(size);
  va = cached(at);
  vb = cached((at + 1));
  vc = (at == 1 -> cached(3) : 0);
  answer()
}

// Looks a page up. Before: the read's section begins.
inline find_for_copy(f, moved, p) {
  atomic {
    rcu = has(RCU);
    f = index[p];
    give_up_if(f == NONE)
  };
  atomic {
    moved = false;
    give_up_if(has(SEQUENCE_ODD) && frame[f].odd)
  };
  atomic { give_up_if(has(IDENTITY) && (frame[f].owner != OURS || frame[f].page != p)) }
}

proctype reader() {
  byte at, n, z, va, vb, vc;
  byte from;  // the operations that had ended, or had been seen, when the call began

end_idle:
  if
  :: atomic { call_hit(0) }
  :: atomic { call_fast(0) }
  :: atomic { call_fast(1) }
#ifdef LONG
  :: atomic { call_hit(2) }
  :: atomic { call_fast(2) }
#endif
  :: atomic { read_slow(0) }
  :: atomic { read_slow(1) }
  :: atomic { read_slow(2) }
  fi;

hit:  // through registers
  atomic { give_up_if(hit_doomed || (has(HIT_SIZE) && at + 2 > size)) };
  atomic {
    if  // whatever the lookaside may guess
    :: fa = 0
    :: fa = 1
    :: fa = 2
    fi;
    give_up_if(hit_doomed || (has(HIT_SEQUENCE_ODD) && frame[fa].odd))
  };
  atomic { give_up_if(hit_doomed || (has(HIT_PAGE) && frame[fa].page != page_of(at))) };
  atomic { give_up_if(hit_doomed || (has(HIT_MAPPING) && frame[fa].owner != OURS)) };
  atomic {
    give_up_if(hit_doomed);
    va = cell_of(fa, at)
  };
  atomic {
    give_up_if(hit_doomed);
    vb = cell_of(fa, at + 1);
    n = 2
  };
  atomic { give_up_if(hit_doomed) };  // recheck of the sequence
  atomic {                            // recheck of the gate
    give_up_if(has(HIT_GATE_RECHECK) && gate_moved);
    answer()
  };

fast_odd:
  atomic { give_up_if(gate_low < at + wanted) };
fast:
  atomic {
    z = size;
    n = (has(CLIP) -> clipped(z) : wanted);
    if
    :: n == 0 -> goto fast_end
    :: else
    fi
  };
  find_for_copy(fa, moved_a, page_of(at));
  atomic {
    copy_out(va, fa, at);
    if
    :: n == 1 ->
      give_up_if(doomed(SEQUENCE_RECHECK));
      d_step { leave_rcu() };
      goto sequence_recheck
    :: n > 1 && at == 1 ->
      give_up_if(doomed(FIRST_RECHECK));
      d_step { leave_rcu() };  // as very long reads do now and then
      goto fast_second
    :: else
    fi
  };
  atomic {
    copy_out(vb, fa, (at + 1));
    give_up_if(doomed(SEQUENCE_RECHECK));
    d_step { leave_rcu() };
    goto sequence_recheck
  };

fast_second:
  find_for_copy(fb, moved_b, 1);
  atomic {
    copy_out(vb, fb, 2);
    if
    :: n == 2 ->
      d_step { leave_rcu() };
      goto first_recheck
    :: else
    fi
  };
  atomic {
    copy_out(vc, fb, 3);
    d_step { leave_rcu() }
  };
first_recheck:
  atomic { give_up_if(doomed(FIRST_RECHECK) || doomed_second) };
  atomic { give_up_if(doomed_second) };
  goto gate_recheck;
sequence_recheck:
  atomic { give_up_if(doomed(SEQUENCE_RECHECK)) };
gate_recheck:
  atomic { give_up_if(has(GATE_RECHECK) && gate_moved) };
  atomic {
    give_up_if(has(SIZE_RECHECK) && n < wanted && size != z);
    answer()
  };

fast_end:  // nothing to copy
  atomic { give_up_if(has(END_GATE_RECHECK) && gate_moved) };
  atomic {
    give_up_if(has(END_SIZE_RECHECK) && size != z);
    answer()
  }
}

init {
  byte first, second;
  atomic {
    d_step {
      truth[0].size = size;
      for (i : 0 .. 2) {
        disk[i] = INITIAL(i);
        truth[0].cell[i] = INITIAL(i)
      }
      for (i : 0 .. 1) {
        frame[i].odd = false;
        frame[i].owner = OURS;
        frame[i].page = i;
        frame[i].cell[0] = disk[2 * i];
        frame[i].cell[1] = disk[2 * i + 1];
        index[i] = i
      }
      i = 0
    };
    select(first : 0 .. 7);
    select(second : first .. 7);
    run mutator(1, first);
    run mutator(2, second);
    run environment();
    run reader()
  }
}
