#include "data/chat_template.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "config/keys.h"
#include "data/mistral_template.h"
#include "data/record.h"
#include "data/text_encoder.h"

namespace mixtune {

namespace {

using Kind = Stretch::Kind;

// The version, 1, 2 or 3, of Mistral's templates; 0 for another template.
int mistral_version(ChatTemplateName name) {
  switch (name) {
    case ChatTemplateName::kMistralV1:
      return 1;
    case ChatTemplateName::kMistralV2:
      return 2;
    case ChatTemplateName::kMistralV3:
      return 3;
    default:
      return 0;
  }
}

// Views of `stretch`.
std::vector<TextSpan> spans_of(const Stretch& stretch, const TextEncoder& encoder) {
  if (stretch.kind == Kind::kContent && encoder.parse_special_tokens)
    return encoder.tokenizer->split_special(stretch.text);
  const bool special = stretch.kind == Kind::kSpecial && encoder.tokenizer->special_id(stretch.text).has_value();
  return {{stretch.text, special}};
}

// The weight of a stretch; 0: it is not trained.
float weight_of(const Stretch& stretch, const TextEncoder& encoder) {
  const auto [kind, weight] = stretch.part;
  return kind == Stretch::Part::kAnswer || (kind == Stretch::Part::kPrompt && encoder.train_on_prompt) ? weight : 0;
}

// Encodes each stretch by itself.
TokenSequence encode_apart(const Stretches& stretches, const TextEncoder& encoder) {
  TokenSequence document;
  for (const Stretch& stretch : stretches) {
    const std::vector<TextSpan> spans = spans_of(stretch, encoder);
    document.append(spans.size() == 1 && !spans[0].special ? encoder.tokenizer->encode(stretch.text)
                                                           : encoder.tokenizer->encode_spans(spans).ids,
                    weight_of(stretch, encoder));
  }
  return document;
}

// Encodes all stretches as one text.
TokenSequence encode_together(const Stretches& stretches, const TextEncoder& encoder) {
  std::vector<TextSpan> spans;
  std::vector<float> weights;  // of each byte
  for (const Stretch& stretch : stretches) {
    const std::vector<TextSpan> more = spans_of(stretch, encoder);
    spans.insert(spans.end(), more.begin(), more.end());
    weights.resize(weights.size() + stretch.text.size(), weight_of(stretch, encoder));
  }
  const size_t size = weights.size();
  const auto [ids, begins] = encoder.tokenizer->encode_spans(spans);
  TokenSequence document;
  for (size_t i = 0; i < ids.size(); ++i) {
    const size_t begin = begins[i], next = i + 1 < ids.size() ? begins[i + 1] : size;
    const size_t end = std::min(std::max(next, begin + 1), size);  // a space without a byte goes with what follows
    const float weight = std::accumulate(weights.begin() + begin, weights.begin() + end, 0.0F,
                                         [](float a, float b) { return std::max(a, b); });
    document.append(std::span(ids).subspan(i, 1), weight);
  }
  return document;
}

TokenSequence encode(const TextEncoder& encoder, const Conversation& conversation, bool for_training,
                     const std::string& where) {
  MT_CHECK(encoder.tokenizer);
  const Tokenizer& tokenizer = *encoder.tokenizer;
  const Marks marks = {.bos = tokenizer.piece(tokenizer.bos()), .eos = tokenizer.piece(tokenizer.eos())};
  const auto& [name, variant] = encoder.chat_template;
  if (const int version = mistral_version(name))
    return encode_apart(render_mistral(version, conversation, marks, for_training, where), encoder);
  return encode_together(render_text(name, variant, conversation, marks, for_training, where), encoder);
}

}  // namespace

std::string_view template_name(ChatTemplateName name) {
  return find_key("chat_template")->choices[static_cast<size_t>(name)];
}

TokenSequence encode_conversation(const TextEncoder& encoder, const Conversation& conversation,
                                  const std::string& where) {
  return encode(encoder, conversation, true, where);
}

std::vector<int32_t> encode_prompt(const TextEncoder& encoder, const Conversation& conversation,
                                   const std::string& where) {
  return encode(encoder, conversation, false, where).ids;
}

int32_t end_of_answer(const TextEncoder& encoder) {
  if (encoder.chat_template.name == ChatTemplateName::kChatml)
    if (const auto mark = encoder.tokenizer->special_id("<|im_end|>")) return *mark;
  return encoder.tokenizer->eos();
}

}  // namespace mixtune
