#include "generate/prompts_file.h"

#include "base/error.h"
#include "base/json.h"
#include "data/record_reader.h"

namespace mixtune {

namespace {

constexpr const char* kOnePrompt = "write a line for each: \"TEXT\", or {\"prompt\": \"TEXT\"}";

std::string prompt_of(std::string_view line, const std::string& where) {
  const nlohmann::ordered_json record = parse_ordered_json(line, where, kOnePrompt, kMaxJsonDepth);
  if (record.is_string()) return record.get<std::string>();
  if (!record.is_object()) throw UserError(where, "is neither a JSON string nor an object", kOnePrompt);
  const auto prompt = record.find("prompt");
  if (prompt == record.end()) throw UserError(where, "'prompt' is missing", kOnePrompt);
  if (!prompt->is_string()) throw UserError(where, "'prompt' is not a string", kOnePrompt);
  return prompt->get<std::string>();
}

}  // namespace

std::vector<Prompt> read_prompts(const std::string& path) {
  RecordReader reader(path);
  std::vector<Prompt> prompts;
  for (std::string_view line; reader.next_text(line);)
    prompts.push_back({prompt_of(line, reader.where()), reader.where()});
  if (prompts.empty()) throw UserError(printable(path, 200), "there is no prompt", kOnePrompt);
  return prompts;
}

}  // namespace mixtune
