// The live view of `quire top` on a terminal, by ncurses. One at a time; the terminal is its own while it lives.
#pragma once

#include <string>
#include <vector>

#include "cli/top.h"

namespace quire {

class TopScreen {
 public:
  // False: this terminal is not one that can be drawn on.
  bool open();
  TopScreen() = default;
  ~TopScreen();
  TopScreen(const TopScreen&) = delete;
  TopScreen& operator=(const TopScreen&) = delete;

  void draw(const std::string& title, const std::vector<CacheSample>& caches);
  bool quit_pressed();  // takes the keys that were pressed; q quits

 private:
  void draw_cache(int* row, const CacheSample& cache);

  void* screen_ = nullptr;  // curses' own
};

}  // namespace quire
