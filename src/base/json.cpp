#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/json_value.h"

namespace mixtune {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using Container = JsonVisitor::Container;

// The library's message without its own names and places: "[json.exception.parse_error.101] parse error at line 1,
// column 9: syntax error ..." becomes "syntax error ...".
std::string reason(std::string_view message) {
  for (const std::string_view before : {"column ", "] "}) {
    size_t at = message.find(before);
    if (at == message.npos) continue;
    if (before == "column ") at = message.find(": ", at);
    if (at != message.npos) return printable(message.substr(at + 2), 160);
  }
  return printable(message, 160);
}

class Sax : public nlohmann::json_sax<json> {
 public:
  Sax(const std::string& where, std::string_view mend, int max_depth, JsonVisitor& visitor)
      : where_(where), mend_(mend), max_depth_(max_depth), visitor_(visitor) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(uint64_t{value}); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(Container::kObject); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Container::kArray); }
  bool end_array() override { return close(); }

  bool key(string_t& key) override {
    Level& level = levels_.back();
    if (!level.keys.insert(key).second) fail(fmt::format("the key '{}' stands twice in one object", printable(key)));
    if (level.keys.size() > 1) path_.pop_back();
    path_.push_back(std::move(key));
    return true;
  }

  // The library would take a NUL for the end, and what follows for nothing.
  void check_no_nul(std::string_view text) const {
    if (const size_t at = text.find('\0'); at != text.npos) fail(fmt::format("holds a NUL byte at byte {}", at + 1));
  }

  bool parse_error(size_t position, const std::string&, const json::exception& error) override {
    fail(fmt::format("is not valid JSON at byte {}: {}", position, reason(error.what())));
  }

 private:
  struct Level {
    explicit Level(Container kind) : container(kind) {}
    Container container;
    std::unordered_set<std::string> keys;
  };

  [[noreturn]] void fail(const std::string& what) const { throw UserError(where_, what, mend_); }

  bool open(Container container) {
    if (levels_.size() == static_cast<size_t>(max_depth_)) fail(fmt::format("nests deeper than {} levels", max_depth_));
    visitor_.open(path_, container);
    levels_.emplace_back(container);
    return true;
  }

  bool close() {
    const Container container = levels_.back().container;
    if (!levels_.back().keys.empty()) path_.pop_back();
    levels_.pop_back();
    visitor_.close(path_, container);
    return true;
  }

  bool scalar(JsonScalar value) {
    const bool in_array = !levels_.empty() && levels_.back().container == Container::kArray;
    visitor_.scalar(path_, in_array, value);
    return true;
  }

  const std::string& where_;
  const std::string_view mend_;
  const int max_depth_;
  JsonVisitor& visitor_;
  JsonPath path_;
  std::vector<Level> levels_;
};

template <class Json>
class TreeBuilder : public JsonVisitor {
 public:
  TreeBuilder(Json& root, const std::string& where, std::string_view mend, bool any_root)
      : root_(root), where_(where), mend_(mend), any_root_(any_root) {}

  void open(const JsonPath& path, Container container) override {
    const bool object = container == Container::kObject;
    if (open_.empty() && !object) check_root();
    open_.push_back(place(path, object ? Json::object() : Json::array()));
  }

  void scalar(const JsonPath& path, bool, JsonScalar& value) override {
    if (open_.empty()) check_root();
    std::visit([&](auto& x) { place(path, std::move(x)); }, value);
  }

  void close(const JsonPath&, Container) override { open_.pop_back(); }

 private:
  void check_root() const {
    if (!any_root_) throw UserError(where_, "is not a JSON object", mend_);
  }

  template <class Value>
  Json* place(const JsonPath& path, Value&& value) {
    if (open_.empty()) return &(root_ = std::forward<Value>(value));
    if (auto* list = open_.back()->template get_ptr<typename Json::array_t*>())
      return &list->emplace_back(std::forward<Value>(value));
    return add(*open_.back()->template get_ptr<typename Json::object_t*>(), path.back(), std::forward<Value>(value));
  }

  static json* add(json::object_t& object, const std::string& key, json value) {
    return &object.emplace(key, std::move(value)).first->second;
  }

  // Keys are unique, so none need be looked for. The vector that an ordered object is would copy its values where it
  // grows, since its keys are const: this moves them.
  static ordered_json* add(ordered_json::object_t& object, const std::string& key, ordered_json value) {
    using Pairs = ordered_json::object_t::Container;
    if (object.size() == object.capacity()) {
      ordered_json::object_t wider;
      wider.reserve(std::max<size_t>(4, 2 * object.size()));
      for (auto& [name, held] : object) wider.Pairs::emplace_back(name, std::move(held));
      object.swap(wider);
    }
    return &object.Pairs::emplace_back(key, std::move(value)).second;
  }

  Json& root_;
  const std::string& where_;
  const std::string_view mend_;
  const bool any_root_;
  std::vector<Json*> open_;  // stable: a container is not touched while one inside it is open
};

template <class Json>
Json read_tree(std::string_view text, const std::string& where, std::string_view mend, int max_depth, bool any_root) {
  Json root;
  TreeBuilder<Json> builder(root, where, mend, any_root);
  read_json(text, where, mend, max_depth, builder);
  return root;
}

}  // namespace

void read_json(std::string_view text, const std::string& where, std::string_view mend, int max_depth,
               JsonVisitor& visitor) {
  Sax sax(where, mend, max_depth, visitor);
  sax.check_no_nul(text);
  json::sax_parse(text.begin(), text.end(), &sax);
}

json parse_json_object(std::string_view text, const std::string& where, std::string_view mend, int max_depth) {
  return read_tree<json>(text, where, mend, max_depth, false);
}

ordered_json parse_ordered_json_object(std::string_view text, const std::string& where, std::string_view mend,
                                       int max_depth) {
  return read_tree<ordered_json>(text, where, mend, max_depth, false);
}

ordered_json parse_ordered_json(std::string_view text, const std::string& where, std::string_view mend, int max_depth) {
  return read_tree<ordered_json>(text, where, mend, max_depth, true);
}

}  // namespace mixtune
