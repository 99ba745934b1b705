#include "data/choose_template.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <optional>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_value.h"
#include "base/log.h"
#include "data/known_templates.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;
using Name = ChatTemplateName;

constexpr size_t kMaxTemplateBytes = size_t{8} << 20;
constexpr int kMaxTemplateDepth = 64;

struct FolderTemplate {
  std::string source, file;  // `file` has the source
};

bool has_file(const std::string& folder, const char* name) {
  std::error_code ignored;
  return fs::exists(fs::path(folder) / name, ignored);
}

std::optional<std::string> text_of(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? std::optional(at->get<std::string>()) : std::nullopt;
}

// The chat_template of tokenizer_config.json. One that cannot be read has an empty text, unless it is `needed`.
std::optional<std::string> source_in(const nlohmann::json& config, bool needed, const std::string& where) {
  const auto at = config.find("chat_template");
  if (at == config.end() || at->is_null()) return std::nullopt;
  if (at->is_string()) return at->get<std::string>();
  for (const nlohmann::json& entry : *at)
    if (text_of(entry, "name") == "default")
      if (const auto source = text_of(entry, "template")) return source;
  if (needed)
    throw UserError(where, "'chat_template' is neither a string nor a list with an entry of the name \"default\"",
                    "set chat_template to the name of a template");
  return "";
}

std::optional<FolderTemplate> read_folder(const std::string& folder, bool needed) {
  constexpr const char *kJinja = "chat_template.jinja", *kConfig = "tokenizer_config.json";
  const auto read = [&](const char* name) {
    return read_small_file(path_within(folder, name), kMaxTemplateBytes, "fetch it again from the model's hub page");
  };
  if (has_file(folder, kJinja)) return FolderTemplate{read(kJinja), (fs::path(folder) / kJinja).string()};
  if (!has_file(folder, kConfig)) return std::nullopt;
  const std::string path = (fs::path(folder) / kConfig).string();
  const auto config = parse_json_object(read(kConfig), printable(path, 200), "fetch it again from the model's hub page",
                                        kMaxTemplateDepth);
  std::optional<std::string> source = source_in(config, needed, printable(path, 200));
  return source ? std::optional(FolderTemplate{std::move(*source), path}) : std::nullopt;
}

bool is_mistral(Name name) {
  return name == Name::kMistralV1 || name == Name::kMistralV2 || name == Name::kMistralV3;
}

// The version of Mistral's templates that the tokeniser tells.
Name mistral_name(const Tokenizer& tokenizer) {
  if (tokenizer.special_id("[SYSTEM_PROMPT]"))
    throw UserError(printable(tokenizer.path(), 200),
                    "is a tokeniser of Mistral's version 7 or later, whose templates are not supported",
                    "set chat_template to a template that this model can learn");
  if (!tokenizer.special_id("[INST]")) return Name::kMistralV1;
  return tokenizer.path().ends_with(".v2") ? Name::kMistralV2 : Name::kMistralV3;
}

const char* describe_control(const Tokenizer& tokenizer) {
  return tokenizer.special_id("[INST]") ? "[INST] is a control token" : "[INST] is no control token";
}

// Throws where `name` cannot be used with this tokeniser.
void check_usable(Name name, const Tokenizer& tokenizer, const std::string& where) {
  if (name == Name::kMistralV3Tekken)
    throw UserError(where, "chat template mistral-v3-tekken is not supported: it goes with tekken's tokeniser",
                    "use a checkpoint with a tokenizer.model, or set chat_template to another template");
  if (name == Name::kMistralV2 || name == Name::kMistralV3)
    for (const char* token : {"[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]",
                              "[TOOL_RESULTS]", "[/TOOL_RESULTS]"})
      if (!tokenizer.special_id(token))
        throw UserError(where,
                        fmt::format("chat template {} needs the control token {}, which {} lacks", template_name(name),
                                    token, printable(tokenizer.path(), 200)),
                        "use mistral-v1, or a tokeniser of version 3");
  if (name == Name::kChatml && !(tokenizer.special_id("<|im_start|>") && tokenizer.special_id("<|im_end|>")))
    log_warning("{}: has no tokens <|im_start|> and <|im_end|>: chat template chatml spells them in pieces",
                printable(tokenizer.path(), 200));
}

ChosenTemplate choose_auto(const std::optional<FolderTemplate>& own, const KnownTemplate* known,
                           const Tokenizer& tokenizer) {
  if (own && !known)
    throw UserError(printable(own->file, 200),
                    "has a chat template that mixtune does not know: " + nearest_known_template(own->source),
                    "if it renders conversations as one of mixtune's templates, set chat_template to its name "
                    "(docs/templates.md)");
  if (known) {
    Name name = known->name;
    std::string why = fmt::format("{} has that of {}", printable(own->file, 200), known->file);
    if (is_mistral(name)) {
      if (tokenizer.special_id("[INST]") || name == Name::kMistralV1) name = mistral_name(tokenizer);
      why += fmt::format(", {}", describe_control(tokenizer));
    }
    return {.chat_template = {name, known->variant}, .why = std::move(why), .source = own->source, .is_folders = true};
  }
  if (tokenizer.special_id("<|im_start|>"))
    throw UserError(printable(tokenizer.path(), 200), "has a token <|im_start|>, but its folder has no chat template",
                    "set chat_template: chatml, or another");
  const Name name = mistral_name(tokenizer);
  return {.chat_template = {.name = name},
          .why = fmt::format("the tokeniser's folder has none, {}", describe_control(tokenizer)),
          .source = std::string(source_to_save(name, {}))};
}

ChosenTemplate choose_named(Name asked, const std::optional<FolderTemplate>& own, const KnownTemplate* known,
                            const Tokenizer& tokenizer, const std::string& where, bool is_runs) {
  const Name own_name = !known ? Name::kAuto : is_mistral(known->name) ? mistral_name(tokenizer) : known->name;
  if (own_name == asked)
    return {.chat_template = {asked, known->variant},
            .why = fmt::format("{}, and {} has it", where, printable(own->file, 200)),
            .source = own->source,
            .is_folders = true};
  if (own && is_runs)
    log_warning("{}: {} has another chat template{}; checkpoints will have {}", where, printable(own->file, 200),
                known ? fmt::format(", {}", template_name(own_name)) : "", template_name(asked));
  const TemplateVariant variant = usual_variant(asked);
  return {.chat_template = {asked, variant}, .why = where, .source = std::string(source_to_save(asked, variant))};
}

}  // namespace

ChosenTemplate choose_template(ChatTemplateName asked, const std::string& folder, const Tokenizer& tokenizer,
                               const std::string& where, bool is_runs) {
  std::error_code ignored;
  const bool is_folder = fs::is_directory(folder, ignored);
  const std::optional<FolderTemplate> own =
      read_folder(is_folder ? folder : fs::absolute(folder, ignored).parent_path().string(), asked == Name::kAuto);
  const KnownTemplate* known = own ? find_known_template(own->source) : nullptr;
  if (asked == Name::kMistralV3Tekken) check_usable(asked, tokenizer, where);
  ChosenTemplate chosen = asked == Name::kAuto ? choose_auto(own, known, tokenizer)
                                               : choose_named(asked, own, known, tokenizer, where, is_runs);
  check_usable(chosen.chat_template.name, tokenizer, where);
  return chosen;
}

}  // namespace mixtune
