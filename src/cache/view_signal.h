// SIGBUS in views, for the program's eyes: what it was about goes to quire_error_message, everything else to whoever
// had the signal before. Nothing depends on it: the kernel raises the signal, and it is the program's. Thread safety:
// any thread. Locks: view signal, a leaf.
#pragma once

namespace quire {

// Installs the handler, once for the process.
void note_view_signals();

}  // namespace quire
