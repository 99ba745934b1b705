#include "cli/generate_modes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/json_value.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/safetensors_writer.h"
#include "cli/preflight.h"
#include "cli/say.h"
#include "generate/chat.h"
#include "generate/prompts_file.h"
#include "model/end_of_text.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

// The room of a conversation, where the model has no fewer positions.
constexpr int64_t kMostChatTokens = int64_t{1} << 17;
// Of all sequences.
constexpr int64_t kMostPositions = int64_t{1} << 30;

// A safetensors file with `logits` [T, V]: what the model says after each token of the prompt.
void write_logits(Decoder& decoder, const std::vector<int32_t>& ids, int64_t vocab, const std::string& path) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const std::vector<float> logits = decoder.logits(ids);
  const TensorEntry entry = {"logits", DType::kF32, {tokens, vocab}};
  StagedPath file(path);
  SafetensorsWriter writer(file.path(), {&entry, 1});
  writer.write(0, 0, std::as_bytes(std::span(logits)));
  writer.finish();
  file.commit_new();
}

std::vector<int32_t> parse_ids(std::string_view text) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == ' ' || text[i] == ',') {
      ++i;
      continue;
    }
    int32_t id = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + text.size(), id);
    if (error != std::errc())
      throw UserError("--ids", fmt::format("'{}' is not a list of token ids", printable(text)), "write --ids 1,2,3");
    ids.push_back(id);
    i = static_cast<size_t>(end - text.data());
  }
  if (ids.empty()) throw UserError("--ids", "there is no id", "write --ids 1,2,3");
  return ids;
}

// What there is to continue with, and where that ends.
struct Speaker {
  FoundModel found;
  MixtralConfig config;
  std::optional<Prompter> prompter;  // none: of --ids
  TextEnds ends;
};

Speaker find_speaker(const GenerateArguments& arguments) {
  const FoundModel found = find_model_or_adapter(arguments.model, arguments.base);
  Speaker speaker = {.found = found, .config = load_mixtral_config(found.folder)};
  if (!arguments.ids)
    speaker.prompter.emplace(arguments.tokenizer.empty() ? found.tokenizer : model_folder(arguments.tokenizer),
                             speaker.config, arguments.text);
  speaker.ends = {.ids = end_of_text_ids(found.folder, speaker.config), .most_tokens = arguments.max_new_tokens};
  if (speaker.prompter) speaker.prompter->add_ends(speaker.ends.ids);
  return speaker;
}

InstanceOptions machine_options(const Speaker& speaker, const Overrides& overrides) {
  Config config = load_config(std::nullopt, overrides);
  choose_precision(config, speaker.config, device_of(config, single_rank()).type);
  return instance_options(config, State::Purpose::kInference);
}

// With room for so many sequences of so many tokens each, as far as the model has positions.
Decoder make_decoder(const Speaker& speaker, int64_t sequences, int64_t tokens, const Overrides& overrides) {
  const int64_t positions = std::min(tokens, speaker.config.max_position_embeddings);
  if (positions > kMostPositions / sequences)
    throw UserError("--batch", fmt::format("{} texts of {} tokens are too many", sequences, positions),
                    "lower it, or --max-new-tokens");
  return {speaker.config,
          {speaker.found.folder, speaker.found.adapter},
          {.sequences = sequences, .positions = positions},
          machine_options(speaker, overrides)};
}

std::vector<int32_t> encode_one(const GenerateArguments& arguments, const Speaker& speaker) {
  if (speaker.prompter) return speaker.prompter->encode(*arguments.prompt, "prompt");
  std::vector<int32_t> ids = parse_ids(*arguments.ids);
  check_prompt(ids, speaker.config, "prompt");
  return ids;
}

void continue_prompt(const GenerateArguments& arguments, const Overrides& overrides) {
  const Speaker speaker = find_speaker(arguments);
  std::vector<int32_t> ids = encode_one(arguments, speaker);
  if (!arguments.logits.empty()) check_output_file(arguments.logits, false);
  const auto prompt = std::ssize(ids);
  Decoder decoder = make_decoder(speaker, 1, prompt + arguments.max_new_tokens, overrides);
  if (!arguments.logits.empty()) write_logits(decoder, ids, speaker.config.vocab_size, arguments.logits);
  if (speaker.prompter) {
    TextStream stream = speaker.prompter->stream(ids);
    continue_texts(decoder, {&ids, 1}, speaker.ends, arguments.sampling, [&](size_t) { say(stream.add(ids.back())); });
    say(stream.finish() + "\n");
  } else {
    continue_texts(decoder, {&ids, 1}, speaker.ends, arguments.sampling);
    fmt::print("{}\n", fmt::join(ids.begin() + prompt, ids.end(), " "));
  }
}

// `ids`: the prompt's `prompt` tokens and what follows them.
std::string json_line(const Prompter& prompter, const std::string& text, std::span<const int32_t> ids, size_t prompt) {
  TextStream stream = prompter.stream({ids.begin(), ids.begin() + static_cast<int64_t>(prompt)});
  std::string said;
  for (const int32_t id : ids.subspan(prompt)) said += stream.add(id);
  said += stream.finish();
  const nlohmann::ordered_json line = {{"prompt", text}, {"text", said}, {"tokens", ids.subspan(prompt)}};
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

void continue_prompts(const GenerateArguments& arguments, const Overrides& overrides) {
  const Speaker speaker = find_speaker(arguments);
  const std::vector<Prompt> prompts = read_prompts(*arguments.prompts);
  std::vector<std::vector<int32_t>> encoded;
  int64_t longest = 0;
  for (const Prompt& prompt : prompts) {
    encoded.push_back(speaker.prompter->encode(prompt.text, prompt.where));
    longest = std::max(longest, std::ssize(encoded.back()));
  }
  const auto batch = static_cast<size_t>(std::min(arguments.batch, std::ssize(prompts)));
  Decoder decoder = make_decoder(speaker, static_cast<int64_t>(batch), longest + arguments.max_new_tokens, overrides);
  for (size_t first = 0; first < prompts.size(); first += batch) {
    const size_t count = std::min(batch, prompts.size() - first);
    std::vector<std::vector<int32_t>> texts(encoded.begin() + static_cast<int64_t>(first),
                                            encoded.begin() + static_cast<int64_t>(first + count));
    for (size_t i = 0; i < count; ++i) decoder.cut(static_cast<int64_t>(i), 0);
    continue_texts(decoder, texts, speaker.ends, arguments.sampling);
    for (size_t i = 0; i < count; ++i)
      say(json_line(*speaker.prompter, prompts[first + i].text, texts[i], encoded[first + i].size()));
  }
}

// The user's turn; false at the end of standard input.
bool read_turn(std::string& turn) {
  if (isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0) say("> ");
  if (!std::getline(std::cin, turn)) return false;
  if (turn.ends_with('\r')) turn.pop_back();
  return true;
}

void converse(const GenerateArguments& arguments, const Overrides& overrides) {
  const Speaker speaker = find_speaker(arguments);
  Decoder decoder = make_decoder(speaker, 1, kMostChatTokens, overrides);
  Chat chat(decoder, *speaker.prompter, speaker.ends, arguments.sampling);
  std::string turn;
  for (int64_t line = 1; read_turn(turn); ++line) {
    const std::string where = fmt::format("standard input:{}", line);
    if (!is_utf8(turn) || turn.find('\0') != turn.npos)
      throw UserError(where, "is not text in UTF-8", "convert it with iconv");
    if (turn.find_first_not_of(" \t") == turn.npos) continue;
    chat.answer(turn, where, say);
    say("\n");
  }
}

}  // namespace

void generate(const GenerateArguments& arguments, const Overrides& overrides) {
  if (arguments.prompts) return continue_prompts(arguments, overrides);
  if (arguments.prompt || arguments.ids) return continue_prompt(arguments, overrides);
  converse(arguments, overrides);
}

}  // namespace mixtune
