// OpenSSL's queue of errors, which belongs to the thread and so to the program that uses quire: what a call of ours
// puts there is taken off again at the end of the scope, and what was there before stays.
#pragma once

#include <openssl/err.h>

namespace quire::verity {

class OpensslErrors {
 public:
  OpensslErrors() { ERR_set_mark(); }
  ~OpensslErrors() { ERR_pop_to_mark(); }
  OpensslErrors(const OpensslErrors&) = delete;
  OpensslErrors& operator=(const OpensslErrors&) = delete;

  // What the last one says. Never null.
  const char* last() const {
    const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason != nullptr ? reason : "no reason given";
  }
};

}  // namespace quire::verity
