#include "data/charsmap.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace mixtune {

namespace {

constexpr uint32_t kLabels = 256;
constexpr int kMaxMatches = 32;  // sentencepiece keeps so many of the texts that begin in one place

// A unit of a darts-clone double array, whose source names these parts.
struct Unit {
  uint32_t bits;

  bool has_leaf() const { return (bits >> 8 & 1) != 0; }
  uint32_t value() const { return bits & 0x7fffffffu; }
  uint32_t label() const { return bits & 0x800000ffu; }  // a value's is no byte
  uint32_t offset() const { return bits >> 10 << ((bits & 1u << 9) >> 6); }
};

class Trie {
 public:
  Trie(std::vector<Unit> units, size_t replacements) : units_(std::move(units)), replacements_(replacements) {}

  // Checks, from the root on, that every unit which a next byte could make the search read is there, that each leaf's
  // value is the place of a replacement, and that no text passes more than kMaxMatches leaves.
  bool is_sound() const;

 private:
  struct Node {
    uint32_t children;  // the units of the 256 next bytes are at children ^ byte
    uint32_t next = 0;  // byte to look at
    int below = 0;      // most leaves on a way down from the bytes before
  };
  enum State : int8_t { kNew = -2, kOpen = -1 };  // otherwise the most leaves from here down

  uint32_t children_of(uint32_t unit) const { return unit ^ units_[unit].offset(); }
  bool fits(uint32_t children) const { return (children | (kLabels - 1)) < units_.size(); }
  bool leaf_is_sound(uint32_t unit) const { return units_[children_of(unit)].value() < replacements_; }

  std::vector<Unit> units_;
  size_t replacements_;
};

bool Trie::is_sound() const {
  if (!fits(children_of(0))) return false;
  std::vector<int8_t> most(units_.size(), kNew);  // by unit
  std::vector<uint32_t> way = {0};
  std::vector<Node> nodes = {{children_of(0)}};
  most[0] = kOpen;
  while (!nodes.empty()) {
    Node& node = nodes.back();
    if (node.next < kLabels) {
      const uint32_t byte = node.next++, unit = node.children ^ byte;
      if (units_[unit].label() != byte) continue;
      if (most[unit] == kOpen) return false;  // the way leads back to itself
      if (most[unit] != kNew) {
        node.below = std::max<int>(node.below, most[unit]);
        continue;
      }
      const uint32_t children = children_of(unit);
      if (!fits(children) || (units_[unit].has_leaf() && !leaf_is_sound(unit))) return false;
      most[unit] = kOpen;
      way.push_back(unit);
      nodes.push_back({children});
      continue;
    }
    const int leaves = node.below + (way.size() > 1 && units_[way.back()].has_leaf() ? 1 : 0);
    if (leaves > kMaxMatches) return false;
    most[way.back()] = static_cast<int8_t>(leaves);
    nodes.pop_back();
    way.pop_back();
    if (!nodes.empty()) nodes.back().below = std::max(nodes.back().below, leaves);
  }
  return true;
}

}  // namespace

bool is_sound_charsmap(std::string_view charsmap) {
  if (charsmap.empty()) return true;
  uint32_t size = 0;
  if (charsmap.size() <= sizeof(size)) return false;
  std::memcpy(&size, charsmap.data(), sizeof(size));
  charsmap.remove_prefix(sizeof(size));
  if (size == 0 || size >= charsmap.size() || size % sizeof(Unit) != 0) return false;
  const std::string_view replacements = charsmap.substr(size);
  if (replacements.back() != '\0') return false;
  std::vector<Unit> units(size / sizeof(Unit));
  std::memcpy(units.data(), charsmap.data(), size);
  return Trie(std::move(units), replacements.size()).is_sound();
}

}  // namespace mixtune
