// Store: small values that ranks leave for each other before they have a Communicator.
#pragma once

#include <string>

namespace mixtune {

class Store {
 public:
  virtual ~Store() = default;

  // Keys and values are any bytes; a value may be set again.
  virtual void set(const std::string& key, const std::string& value) = 0;

  // The value, once it is set. Throws Error where that takes longer than the store's timeout, or the store is lost.
  virtual std::string get(const std::string& key) = 0;
};

}  // namespace mixtune
