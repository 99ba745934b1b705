#include "cli/generate_modes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/json_value.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/safetensors_writer.h"
#include "cli/preflight.h"
#include "cli/ranks.h"
#include "cli/say.h"
#include "generate/chat.h"
#include "generate/prompts_file.h"
#include "model/end_of_text.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

// Of all sequences.
constexpr int64_t kMostPositions = int64_t{1} << 30;

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

// All that is known before a device is touched.
struct Task {
  const GenerateArguments& arguments;
  Config config;  // of the machine
  Speaker speaker;
  std::vector<Prompt> prompts;            // those of a file
  std::vector<std::vector<int32_t>> ids;  // of the prompts, or of the one; none in a conversation
  int64_t positions = 0;                  // of each sequence
};

// How many of `sequences`, which ranks take in turn, are this rank's.
int64_t share_of(int64_t sequences, int rank, int ranks) {
  return (sequences - rank + ranks - 1) / ranks;
}

// Those that a rank has at once. The first has the one prompt, or the conversation.
int64_t sequences_of(const Task& task, int rank, int ranks) {
  return share_of(task.arguments.prompts ? std::min(task.arguments.batch, std::ssize(task.prompts)) : 1, rank, ranks);
}

void read_what_to_continue(Task& task) {
  const auto& [arguments, config, speaker, prompts, ids, positions] = task;
  if (arguments.ids) {
    task.ids = {parse_ids(*arguments.ids)};
    check_prompt(task.ids[0], speaker.config, "prompt");
  } else if (arguments.prompts) {
    task.prompts = read_prompts(*arguments.prompts);
    for (const Prompt& prompt : task.prompts) task.ids.push_back(speaker.prompter->encode(prompt.text, prompt.where));
  } else if (arguments.prompt) {
    task.ids = {speaker.prompter->encode(*arguments.prompt, "prompt")};
  }
  int64_t longest = 0;
  for (const auto& prompt : ids) longest = std::max(longest, std::ssize(prompt));
  task.positions = std::min(ids.empty() ? arguments.max_length : longest + arguments.max_new_tokens,
                            speaker.config.max_position_embeddings);
}

// Reads all that there is to know, and refuses what can be refused by it. `ranks` there will be.
Task make_task(const GenerateArguments& arguments, const Overrides& overrides, int ranks) {
  Task task = {
      .arguments = arguments, .config = load_config(std::nullopt, overrides), .speaker = find_speaker(arguments)};
  choose_precision(task.config, task.speaker.config, device_of(task.config, single_rank()).type);
  instance_options(task.config, State::Purpose::kInference);  // the keys fit the machine
  read_what_to_continue(task);
  const int64_t sequences = sequences_of(task, 0, ranks);
  if (task.positions > kMostPositions / sequences)
    throw UserError("--batch", fmt::format("{} texts of {} tokens are too many", sequences, task.positions),
                    "lower it, or --max-new-tokens");
  if (!arguments.logits.empty()) check_output_file(arguments.logits, false);
  return task;
}

// What ranks must have in common.
Entries entries_of(const Task& task) {
  const GenerateArguments& arguments = task.arguments;
  Entries entries = entries_of_model(task.speaker.found.folder, task.speaker.found.adapter);
  entries["text to continue"] = hash_of_text(fmt::format("{}", task.ids));
  entries["end of text"] = fmt::format("{}", task.speaker.ends.ids);
  const auto add = [&](const char* flag, const auto& value) {
    entries[fmt::format("flag {}", flag)] = fmt::format("{}", value);
  };
  add("--prompts", arguments.prompts.has_value());
  add("--batch", arguments.batch);
  add("--max-new-tokens", arguments.max_new_tokens);
  add("--max-length", arguments.max_length);
  add("--temperature", arguments.sampling.temperature);
  add("--top-p", arguments.sampling.top_p);
  add("--seed", arguments.sampling.seed);
  add("--logits", !arguments.logits.empty());
  return entries;
}

Decoder make_decoder(const Task& task, const Ranks& ranks) {
  const CacheRoom room = {.sequences = sequences_of(task, ranks.grid.rank, ranks.grid.world),
                          .positions = task.positions};
  const Speaker& speaker = task.speaker;
  const InstanceOptions options = instance_options(task.config, State::Purpose::kInference, ranks);
  return {speaker.config, {speaker.found.folder, speaker.found.adapter}, room, options};
}

// While it lives, the others may wait for this rank as long as they must: it waits for somebody itself.
class Patience {
 public:
  explicit Patience(const Ranks& ranks) {
    if (ranks.grid.world == 1) return;
    thread_ = std::jthread([&ranks](const std::stop_token& stop) {
      std::mutex mutex;
      std::condition_variable_any stopped;
      std::unique_lock lock(mutex);
      while (!stopped.wait_for(lock, stop, kBeat, [&] { return stop.stop_requested(); })) ranks.advance();
    });
  }

 private:
  static constexpr std::chrono::milliseconds kBeat{200};
  std::jthread thread_;
};

// A pager may let it wait.
void say_patiently(const Ranks& ranks, const std::string& text) {
  const Patience patience(ranks);
  say(text);
}

// A safetensors file with `logits` [T, V]: what the model says after each token of the prompt.
void write_logits(Decoder& decoder, const std::vector<int32_t>& ids, int64_t vocab, const std::string& path) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const std::vector<float> logits = decoder.logits(ids);
  const Patience patience(decoder.ranks());  // a disk may take its time
  const TensorEntry entry = {"logits", DType::kF32, {tokens, vocab}};
  StagedPath file(path);
  SafetensorsWriter writer(file.path(), {&entry, 1});
  writer.write(0, 0, std::as_bytes(std::span(logits)));
  writer.finish();
  file.commit_new();
}

// What ranks but the first do of a text that it has.
void follow(Decoder& decoder, const Task& task) {
  continue_texts(decoder, {}, task.speaker.ends, task.arguments.sampling);
}

void continue_prompt(const Task& task, Decoder& decoder) {
  const auto& [arguments, config, speaker, prompts, all_ids, positions] = task;
  const bool has_logits = !arguments.logits.empty();
  if (decoder.ranks().grid.rank != 0) {
    if (has_logits) decoder.extend({});
    return follow(decoder, task);
  }
  const auto tell = [&](const std::string& piece) {
    say_patiently(decoder.ranks(), piece);
  };
  std::vector<int32_t> ids = all_ids[0];
  const auto prompt = std::ssize(ids);
  if (has_logits) write_logits(decoder, ids, speaker.config.vocab_size, arguments.logits);
  if (speaker.prompter) {
    TextStream stream = speaker.prompter->stream(ids);
    continue_texts(decoder, {&ids, 1}, speaker.ends, arguments.sampling, [&](size_t) { tell(stream.add(ids.back())); });
    tell(stream.finish() + "\n");
  } else {
    continue_texts(decoder, {&ids, 1}, speaker.ends, arguments.sampling);
    tell(fmt::format("{}\n", fmt::join(ids.begin() + prompt, ids.end(), " ")));
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

// Continues prompts [first, first + count), of which this rank has its share. Returns their lines.
std::string continue_batch(const Task& task, Decoder& decoder, size_t first, size_t count) {
  const RankGrid& grid = decoder.ranks().grid;
  std::vector<size_t> own;
  std::vector<std::vector<int32_t>> texts;
  for (size_t i = static_cast<size_t>(grid.rank); i < count; i += static_cast<size_t>(grid.world)) {
    own.push_back(first + i);
    texts.push_back(task.ids[first + i]);
    decoder.cut(std::ssize(texts) - 1, 0);
  }
  continue_texts(decoder, texts, task.speaker.ends, task.arguments.sampling);
  std::string lines;
  for (size_t i = 0; i < own.size(); ++i)
    lines += json_line(*task.speaker.prompter, task.prompts[own[i]].text, texts[i], task.ids[own[i]].size());
  return lines;
}

// The lines of all ranks, taken from them in turn.
std::string in_turn(const std::vector<std::string>& lines_of_ranks, size_t count) {
  std::vector<size_t> begins(lines_of_ranks.size());
  std::string lines;
  for (size_t i = 0; i < count; ++i) {
    const size_t rank = i % begins.size(), begin = begins[rank];
    begins[rank] = lines_of_ranks[rank].find('\n', begin) + 1;
    lines += lines_of_ranks[rank].substr(begin, begins[rank] - begin);
  }
  return lines;
}

void continue_prompts(const Task& task, Decoder& decoder) {
  const auto batch = static_cast<size_t>(task.arguments.batch), all = task.prompts.size();
  for (size_t first = 0; first < all; first += batch) {
    const size_t count = std::min(batch, all - first);
    const std::string lines = in_turn(decoder.gather(continue_batch(task, decoder, first, count)), count);
    if (decoder.ranks().grid.rank == 0) say_patiently(decoder.ranks(), lines);
  }
}

// A line of standard input.
struct UserTurn {
  std::string text;
  int64_t line = 0;

  std::string where() const { return fmt::format("standard input:{}", line); }
};

// Reads the user's next turn that is not blank; false at the end of standard input.
bool read_turn(const Ranks& ranks, UserTurn& turn) {
  const Patience patience(ranks);
  do {
    if (isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0) say("> ");
    if (!std::getline(std::cin, turn.text)) return false;
    ++turn.line;
    if (turn.text.ends_with('\r')) turn.text.pop_back();
    if (!is_utf8(turn.text) || turn.text.find('\0') != turn.text.npos)
      throw UserError(turn.where(), "is not text in UTF-8", "convert it with iconv");
  } while (turn.text.find_first_not_of(" \t") == turn.text.npos);
  return true;
}

void converse(const Task& task, Decoder& decoder) {
  if (decoder.ranks().grid.rank != 0) {
    while (decoder.any(false)) follow(decoder, task);
    return;
  }
  Chat chat(decoder, *task.speaker.prompter, task.speaker.ends, task.arguments.sampling);
  UserTurn turn;
  while (decoder.any(read_turn(decoder.ranks(), turn))) {
    const auto tell = [&](const std::string& piece) {
      say_patiently(decoder.ranks(), piece);
    };
    chat.answer(turn.text, turn.where(), tell);
    tell("\n");
  }
}

}  // namespace

void generate(const GenerateArguments& arguments, const Overrides& overrides) {
  const auto launch = launch_of_process(arguments.ranks);
  std::optional<Silence> silence(!leads(launch));
  const Task task = make_task(arguments, overrides, launch ? launch->size : std::max(arguments.ranks, 1));
  silence.reset();
  run_on_ranks({.config = task.config,
                .launch = launch,
                .nproc = arguments.ranks,
                .experts = [&] { return task.speaker.config.num_local_experts; },
                .entries = [&] { return entries_of(task); },
                .reads_input = task.ids.empty()},
               [&](const Ranks& ranks) {
                 ranks.set_activity("loading");
                 Decoder decoder = make_decoder(task, ranks);
                 ranks.set_activity("generating");
                 if (arguments.prompts) return continue_prompts(task, decoder);
                 task.ids.empty() ? converse(task, decoder) : continue_prompt(task, decoder);
               });
}

}  // namespace mixtune
