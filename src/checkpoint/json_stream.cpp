#include "checkpoint/json_stream.h"

#include <fmt/format.h>

#include <unordered_set>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace mixtune {

namespace {

using nlohmann::json;

class Sax : public nlohmann::json_sax<json> {
 public:
  Sax(const std::string& where, int max_depth, JsonVisitor& visitor)
      : where_(where), max_depth_(max_depth), visitor_(visitor) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(uint64_t{value}); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(JsonVisitor::Container::kObject); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(JsonVisitor::Container::kArray); }
  bool end_array() override { return close(); }

  bool key(string_t& key) override {
    Level& level = levels_.back();
    if (!level.keys.insert(key).second)
      throw UserError(where_, fmt::format("the key '{}' stands twice in one object", printable(key)),
                      "the file is damaged: get it again");
    if (level.keys.size() > 1) path_.pop_back();
    path_.push_back(key);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    throw UserError(where_, fmt::format("is not valid JSON at byte {}", position), "the file is damaged: get it again");
  }

 private:
  struct Level {
    JsonVisitor::Container container;
    std::unordered_set<std::string> keys;
  };

  bool open(JsonVisitor::Container container) {
    if (levels_.size() == static_cast<size_t>(max_depth_))
      throw UserError(where_, fmt::format("nests deeper than {} levels", max_depth_),
                      "check that it is the right file");
    visitor_.open(path_, container);
    levels_.push_back({container, {}});
    return true;
  }

  bool close() {
    const JsonVisitor::Container container = levels_.back().container;
    if (!levels_.back().keys.empty()) path_.pop_back();
    levels_.pop_back();
    visitor_.close(path_, container);
    return true;
  }

  bool scalar(JsonScalar value) {
    const bool in_array = !levels_.empty() && levels_.back().container == JsonVisitor::Container::kArray;
    visitor_.scalar(path_, in_array, value);
    return true;
  }

  const std::string& where_;
  const int max_depth_;
  JsonVisitor& visitor_;
  JsonPath path_;
  std::vector<Level> levels_;
};

}  // namespace

void read_json(std::string_view text, const std::string& where, int max_depth, JsonVisitor& visitor) {
  Sax sax(where, max_depth, visitor);
  json::sax_parse(text.begin(), text.end(), &sax);
}

}  // namespace mixtune
