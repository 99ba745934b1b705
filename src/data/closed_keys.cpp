#include "data/closed_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace mixtune {

namespace {

using nlohmann::ordered_json;

constexpr std::string_view kPreference = "is of preference data (DPO, KTO), which is not supported";
constexpr std::string_view kKeepAnswer = "write the answer to train on in a format's own keys (docs/data.md)";
constexpr std::string_view kMedia = "is not supported: the model reads text alone";
constexpr std::string_view kRemove = "remove it, or the record";

constexpr std::array kRefused = {
    RefusedKey{"chosen", kPreference, kKeepAnswer},
    RefusedKey{"rejected", kPreference, kKeepAnswer},
    RefusedKey{"kto_tag", kPreference, kKeepAnswer},
    RefusedKey{"image", kMedia, kRemove},
    RefusedKey{"images", kMedia, kRemove},
    RefusedKey{"image_url", kMedia, kRemove},
    RefusedKey{"audio", kMedia, kRemove},
    RefusedKey{"audios", kMedia, kRemove},
    RefusedKey{"video", kMedia, kRemove},
    RefusedKey{"videos", kMedia, kRemove},
    RefusedKey{"reasoning_content", kReasoning, kIntoText},
    RefusedKey{"thinking", kReasoning, kIntoText},
    RefusedKey{"chat_template_kwargs", "is not supported: the chat template takes no arguments", "remove it"},
};

constexpr std::string_view kWeightMend = "give 'weight' or 'train' to each turn, or loss_mask to each token";
constexpr std::string_view kMaskMend =
    "give 'train' to each turn, or labels, loss_mask, completion_mask or assistant_masks to each token";

bool all_ones(const ordered_json& value) {
  const auto is_one = [](const ordered_json& x) {
    return as_flag(x) == true;
  };
  return is_one(value) || (value.is_array() && std::ranges::all_of(value, is_one));
}

// Whether `key` is one of the words, or ends with "_" and one: "mask", "loss_mask".
template <size_t n>
bool names(std::string_view key, const std::array<std::string_view, n>& words) {
  return std::ranges::any_of(words, [&](std::string_view word) {
    return key.ends_with(word) && (key.size() == word.size() || key[key.size() - word.size() - 1] == '_');
  });
}

// A weight of 1 changes nothing; the two masks at the end say nothing of what is trained.
void refuse_weights_and_masks(std::string_view key, const ordered_json& value, const FieldPlace& place) {
  constexpr std::array<std::string_view, 3> kWeights = {"weight", "weights", "loss_scale"};
  constexpr std::array<std::string_view, 2> kMasks = {"mask", "masks"};
  const bool weight = names(key, kWeights);
  if (!weight && (!names(key, kMasks) || key == "special_tokens_mask" || key == "attention_mask")) return;
  if (all_ones(value)) return;
  if (weight)
    place.fail(fmt::format("'{}' is {}: weights other than 1 are not supported here", printable(key), kind_of(value)),
               kWeightMend);
  place.fail(fmt::format("'{}' is a mask that is not read", printable(key)), kMaskMend);
}

void refuse_listed(std::string_view key, std::span<const RefusedKey> refused, const FieldPlace& place) {
  for (const RefusedKey& entry : refused)
    if (key == entry.key) place.fail(fmt::format("'{}' {}", key, entry.what), entry.mend);
}

}  // namespace

void check_keys(const Fields& fields, std::span<const std::string_view> read, std::span<const RefusedKey> refused,
                std::string_view prefix, UnreadKeys& unread) {
  for (const auto& [key, value] : fields.object().get_ref<const ordered_json::object_t&>()) {
    if (value.is_null() || std::ranges::find(read, key) != read.end()) continue;
    if (!is_empty(value)) {
      refuse_listed(key, refused, fields.place());
      refuse_listed(key, kRefused, fields.place());
      refuse_weights_and_masks(key, value, fields.place());
    }
    prefix.empty() ? unread.add(key) : unread.add(fmt::format("{}.{}", prefix, key));
  }
}

}  // namespace mixtune
