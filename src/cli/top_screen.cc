// Drawing by ncurses; see top_screen.h.
#include "cli/top_screen.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "cli/watch.h"

#define NCURSES_NOMACROS
#include <ncurses.h>

namespace quire {

namespace {

constexpr int kBarWidth = 32;

// "[#####|     ] 12.0 MiB of 64.0 MiB"; mark: where the bar has a line.
std::string bar(std::uint64_t part, std::uint64_t whole, std::uint64_t mark) {
  const auto place = [whole](std::uint64_t value) {
    if (whole == 0) return 0;
    const double share = std::min(1.0, static_cast<double>(value) / static_cast<double>(whole));
    return static_cast<int>(share * kBarWidth);
  };
  std::string text(kBarWidth, ' ');
  std::fill_n(text.begin(), place(part), '#');
  if (mark != 0 && place(mark) < kBarWidth && place(part) <= place(mark)) text[place(mark)] = '|';
  return fmt::format("[{}] {} of {}", text, human_bytes(static_cast<double>(part)),
                     human_bytes(static_cast<double>(whole)));
}

}  // namespace

bool TopScreen::open() {
  SCREEN* screen = newterm(nullptr, stdout, stdin);
  if (screen == nullptr) return false;
  screen_ = screen;
  set_term(screen);
  cbreak();
  noecho();
  nodelay(stdscr, true);
  keypad(stdscr, true);
  curs_set(0);
  return true;
}

TopScreen::~TopScreen() {
  if (screen_ == nullptr) return;
  endwin();
  delscreen(static_cast<SCREEN*>(screen_));
}

bool TopScreen::quit_pressed() {
  for (;;) {
    const int key = getch();  // a changed size comes as a key, and is dealt with there
    if (key == ERR) return false;
    if (key == 'q' || key == 'Q') return true;
  }
}

void TopScreen::draw_cache(int* row, const CacheSample& cache) {
  const quire_published& now = cache.now;
  const CacheRates& rates = cache.rates;
  const auto line = [row](const std::string& text) { mvaddnstr((*row)++, 0, text.c_str(), COLS); };
  const std::string ratio = rates.hit_ratio ? fmt::format("{:.2f} %", *rates.hit_ratio * 100) : "no reads";
  attron(A_BOLD);
  line(fmt::format("cache {}", now.cache));
  attroff(A_BOLD);
  line(fmt::format("  hit ratio  {:>10}   reads/s {:>8}   hits/s {:>8}", ratio, human_count(rates.reads),
                   human_count(rates.hits)));
  line(fmt::format("  fills/s    {:>10}   evictions/s {:>8}   refaults/s {:>8}", human_count(rates.fills),
                   human_count(rates.evictions), human_count(rates.refaults)));
  line(fmt::format("  memory     {}", bar(now.used_bytes, now.memory_bytes, 0)));
  line(fmt::format("  dirty      {}   writeback {}/s",
                   bar(now.dirty_bytes, now.dirty_limit_bytes, now.background_dirty_bytes),
                   human_bytes(rates.writeback_bytes)));
  const std::string errors =
      now.writeback_errors == 0 ? "" : fmt::format("   writeback errors {}", now.writeback_errors);
  line(fmt::format("  in all     hits {}   fills {}   evictions {}   written back {}   waits at the dirty limit {}{}",
                   human_count(static_cast<double>(now.hits)), human_count(static_cast<double>(now.fills)),
                   human_count(static_cast<double>(now.evictions)),
                   human_bytes(static_cast<double>(now.writeback_bytes)),
                   human_count(static_cast<double>(now.throttled)), errors));
  ++*row;
}

void TopScreen::draw(const std::string& title, const std::vector<CacheSample>& caches) {
  werase(stdscr);
  attron(A_REVERSE);
  mvaddnstr(0, 0, fmt::format("{:<{}}", title, std::max(COLS, 0)).c_str(), COLS);
  attroff(A_REVERSE);
  int row = 2;
  for (const CacheSample& cache : caches) draw_cache(&row, cache);
  if (caches.empty()) mvaddnstr(row, 0, "no cache just now", COLS);
  wrefresh(stdscr);
}

}  // namespace quire
