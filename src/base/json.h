// Strict readers of JSON that is not trusted: bounded depth, no repeated key, nothing kept but what the visitor keeps.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace mixtune {

using JsonScalar = std::variant<std::nullptr_t, bool, uint64_t, int64_t, double, std::string>;  // int64_t: below 0
using JsonPath = std::vector<std::string>;

// Takes each piece of a text. `path` has the keys from the outermost object down to the piece; the elements of an array
// have the array's path.
class JsonVisitor {
 public:
  virtual ~JsonVisitor() = default;
  enum class Container { kObject, kArray };
  virtual void open(const JsonPath& path, Container container) = 0;
  virtual void scalar(const JsonPath& path, bool in_array, JsonScalar& value) = 0;  // may take what `value` holds
  virtual void close(const JsonPath& path, Container container) = 0;
};

// Reads `text`. Throws UserError, `where` in front and `mend` at the end, where it is not JSON, holds invalid UTF-8 or
// a NUL byte anywhere, nests deeper than `max_depth` or repeats a key.
void read_json(std::string_view text, const std::string& where, std::string_view mend, int max_depth,
               JsonVisitor& visitor);

// Parses the object that `text` must be. Throws as read_json does, and where it is another value.
nlohmann::json parse_json_object(std::string_view text, const std::string& where, std::string_view mend, int max_depth);

// Parses it with the keys of objects in the text's order: each is found by a walk over all.
nlohmann::ordered_json parse_ordered_json_object(std::string_view text, const std::string& where, std::string_view mend,
                                                 int max_depth);

// Parses any value so.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& where, std::string_view mend,
                                          int max_depth);

}  // namespace mixtune
