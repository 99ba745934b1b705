// Streaming reader of JSON that is not trusted: bounded depth, no duplicate keys, no tree in memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace mixtune {

using JsonScalar = std::variant<std::nullptr_t, bool, uint64_t, int64_t, double, std::string>;  // int64_t: below 0
using JsonPath = std::vector<std::string>;

// What a reader does with each piece. `path` has the keys from the outermost object down to the piece; the elements of
// an array have the array's path.
class JsonVisitor {
 public:
  virtual ~JsonVisitor() = default;
  enum class Container { kObject, kArray };
  virtual void open(const JsonPath& path, Container container) = 0;
  virtual void scalar(const JsonPath& path, bool in_array, const JsonScalar& value) = 0;
  virtual void close(const JsonPath& path, Container container) = 0;
};

// Throws UserError, `where` in front, for what is not JSON, nests deeper than `max_depth` or repeats a key.
void read_json(std::string_view text, const std::string& where, int max_depth, JsonVisitor& visitor);

}  // namespace mixtune
