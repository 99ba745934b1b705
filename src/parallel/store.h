// Store: small values that ranks leave for each other before they have a Communicator.
#pragma once

#include <string>

namespace mixtune {

class Store {
 public:
  virtual ~Store() = default;

  // Sets a key. Keys and values are any bytes. A rank sets each of its keys once; throws Error where it sets one again,
  // or where the value is too large.
  virtual void set(const std::string& key, const std::string& value) = 0;

  // The value that `rank` sets the key to, once it has. Throws Error where that takes longer than the store's timeout,
  // or the store is lost.
  virtual std::string get(int rank, const std::string& key) = 0;
};

}  // namespace mixtune
