#include "generate/continue.h"

#include <algorithm>

namespace mixtune {

void continue_texts(Decoder& decoder, std::span<std::vector<int32_t>> texts, const TextEnds& ends,
                    const Sampling& sampling, const std::function<void(size_t)>& heard) {
  std::vector<size_t> open, limits;
  for (size_t i = 0; i < texts.size(); ++i) {
    open.push_back(i);
    limits.push_back(static_cast<size_t>(
        std::min(static_cast<int64_t>(texts[i].size()) + ends.most_tokens, decoder.room().positions)));
  }
  const auto has_ended = [&](size_t i) {
    return texts[i].size() >= limits[i] || std::ranges::find(ends.ids, texts[i].back()) != ends.ids.end();
  };
  std::erase_if(open, [&](size_t i) { return texts[i].size() >= limits[i]; });
  const auto vocab = static_cast<size_t>(decoder.vocab_size());
  while (decoder.any(!open.empty())) {
    std::vector<Decoder::Extension> extensions;
    for (const size_t i : open) {
      const auto sequence = static_cast<int64_t>(i);
      extensions.push_back({sequence, std::span(texts[i]).subspan(static_cast<size_t>(decoder.length(sequence)))});
    }
    const std::vector<float> logits = decoder.extend(extensions);
    for (size_t j = 0; j < open.size(); ++j) {
      std::vector<int32_t>& text = texts[open[j]];
      text.push_back(
          next_token(std::span(logits).subspan(j * vocab, vocab), sampling, static_cast<int64_t>(text.size())));
      if (heard) heard(open[j]);
    }
    std::erase_if(open, has_ended);
  }
}

}  // namespace mixtune
