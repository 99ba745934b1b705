#include "checkpoint/index.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/json.h"
#include "base/json_value.h"

namespace mixtune {

namespace {

constexpr const char* kMend = "the file is damaged: get it again";

bool plain_file_name(std::string_view name) {
  return name.ends_with(".safetensors") && name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

class IndexVisitor : public JsonVisitor {
 public:
  IndexVisitor(const std::string& where, WeightMap& weight_map) : where_(where), weight_map_(weight_map) {}

  void open(const JsonPath& path, Container container) override {
    if (path.empty() && container != Container::kObject) malformed("is not a JSON object");
    if (!path.empty() && path[0] == "weight_map") {
      if (path.size() > 1 || container != Container::kObject) malformed("its weight_map is not a map of names");
      found_ = true;
    }
  }

  void scalar(const JsonPath& path, bool, JsonScalar& value) override {
    if (path.empty()) malformed("is not a JSON object");
    if (path[0] != "weight_map") return;
    const auto* file = std::get_if<std::string>(&value);
    if (path.size() != 2 || file == nullptr) malformed("its weight_map is not a map of names");
    if (!plain_file_name(*file))
      throw UserError(
          where_, fmt::format("tensor '{}' is said to be in '{}'", printable(path[1]), printable(*file)),
          "an index may name only .safetensors files of its own folder, without a path: get the checkpoint again");
    weight_map_.emplace(path[1], *file);
  }

  void close(const JsonPath& path, Container) override {
    if (path.empty() && !found_) malformed("has no weight_map");
  }

 private:
  [[noreturn]] void malformed(std::string_view what) const { throw UserError(where_, what, kMend); }

  const std::string& where_;
  WeightMap& weight_map_;
  bool found_ = false;
};

}  // namespace

WeightMap parse_index(std::string_view json, const std::string& where) {
  WeightMap weight_map;
  IndexVisitor visitor(where, weight_map);
  read_json(json, where, kMend, 4, visitor);
  if (weight_map.empty()) throw UserError(where, "names no tensor", kMend);
  return weight_map;
}

std::string format_index(const WeightMap& weight_map, uint64_t total_size) {
  const nlohmann::json index = {{"metadata", {{"total_size", total_size}}}, {"weight_map", weight_map}};
  return index.dump(2) + "\n";
}

}  // namespace mixtune
