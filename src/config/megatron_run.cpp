#include "config/megatron_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/suggest.h"
#include "config/keys.h"
#include "config/megatron_flags.h"

namespace mixtune {

namespace {

using Take = MegatronFlag::Take;

double number_of(const MegatronArgument& argument) {
  static const Key key = item_key(KeyType::kNumber, {0, 1e15});
  return std::get<double>(parse_value(key, argument.value, argument.where));
}

int64_t count_of(const MegatronArgument& argument) {
  static const Key key = item_key(KeyType::kInteger, {1, 1e15});
  return std::get<int64_t>(parse_value(key, argument.value, argument.where));
}

bool switch_of(const MegatronArgument& argument) {
  static const Key key = item_key(KeyType::kBoolean);
  return std::get<bool>(parse_value(key, argument.value, argument.where));
}

// Whether the value is one of "a|b", as a number or a boolean too: "1.0" is "1", "False" is "false".
bool is_one_of(const MegatronArgument& argument, std::string_view values) {
  for (size_t begin = 0; begin <= values.size();) {
    const size_t end = std::min(values.find('|', begin), values.size());
    const std::string_view value = values.substr(begin, end - begin);
    begin = end + 1;
    if (argument.value == value) return true;
    try {
      if (value == "true" || value == "false") return switch_of(argument) == (value == "true");
      if (value.find_first_not_of("0123456789.") == value.npos && !value.empty())
        return number_of(argument) == number_of({.name = "", .value = std::string(value), .shown = "", .where = ""});
    } catch (const UserError&) {
      return false;
    }
  }
  return false;
}

// The table's own hint, or that of another tool's table; null: it is a key of ours.
const ForeignKey* hint_of(const MegatronFlag& flag) {
  return flag.foreign.tools != 0 ? &flag.foreign : find_foreign_key(flag.foreign.name);
}

// "a or b" of "a|b".
std::string alternatives(std::string_view values) {
  std::string text;
  for (const char c : values) c == '|' ? text += " or " : text += c;
  return text;
}

// "128" of 128.
std::string plain(double number) {
  return fmt::format("{}", number);
}

class Translator {
 public:
  explicit Translator(std::span<const MegatronArgument> arguments) : arguments_(arguments) {
    for (const MegatronArgument& argument : arguments) by_name_.emplace(argument.name, &argument);
  }

  MegatronRun run() {
    for (const MegatronArgument& argument : arguments_) try {
        take(argument);
      } catch (const UserError& error) {
        refused_.push_back(error);
      }
    if (!refused_.empty()) throw_unknown("--megatron_args", refused_);
    add_defaults();
    return std::move(run_);
  }

 private:
  using Handler = void (Translator::*)(const MegatronArgument&);

  const MegatronArgument* find(std::string_view name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }

  void say(const MegatronArgument& argument, std::string_view what) {
    run_.lines.push_back(fmt::format("{} -> {}", argument.shown, what));
  }

  // As the argument says it, or where it is derived of several.
  void set(const MegatronArgument& argument, const std::string& name, const std::string& value) {
    parse_value(*find_key(name), value, argument.where);
    const std::string key(find_key(name)->name);
    const auto other = std::ranges::find(run_.settings, key, &OtherSetting::key);
    if (other != run_.settings.end() && other->value != value)
      throw UserError(
          argument.where,
          fmt::format("would make {} {}, and {} says {}", key, printable(value), other->where, printable(other->value)),
          "keep one of the two");
    if (other == run_.settings.end()) run_.settings.push_back({.key = key, .value = value, .where = argument.where});
    say(argument, fmt::format("{}: {}", key, printable(value, 200)));
  }

  void take(const MegatronArgument& argument) {
    const MegatronFlag* flag = find_megatron_flag(argument.name);
    if (flag == nullptr) throw_unheard_of(argument);
    switch (flag->take) {
      case Take::kRefused:
        refuse(argument, *flag);
      case Take::kKey:
        return take_key(argument, *flag);
      case Take::kSwitch:
        check_switch(argument);
        return say(argument, hint(*hint_of(*flag)));
      case Take::kNothing:
        return say(argument, hint(*hint_of(*flag)));
      case Take::kOnly:
        if (!is_one_of(argument, flag->values)) refuse(argument, *flag);
        return say(argument, "nothing: it is so here");
      case Take::kShape:
        run_.shape.push_back({.key = std::string(flag->values), .value = argument.value, .where = argument.where});
        return say(argument, fmt::format("held against config.json: {}", flag->values));
      case Take::kCombined:
        return (this->*handlers().at(argument.name))(argument);
    }
  }

  static void check_switch(const MegatronArgument& argument) {
    if (!is_boolean(argument.value))
      throw UserError(argument.where,
                      fmt::format("takes no value but true or false, and has '{}'", printable(argument.value)),
                      "leave the value out");
  }

  void take_key(const MegatronArgument& argument, const MegatronFlag& flag) {
    const ForeignKey* hint = find_key(argument.name) ? nullptr : hint_of(flag);
    const std::string key(hint ? hint->key : argument.name);
    const size_t colon = key.find(": ");
    if (colon == key.npos) return set(argument, key, argument.value);
    if (!switch_of(argument)) return say(argument, "nothing: it is off");
    set(argument, key.substr(0, colon), key.substr(colon + 2));
  }

  [[noreturn]] static void throw_unheard_of(const MegatronArgument& argument) {
    const std::string near = nearest_name(std::string_view(argument.name).substr(0, 100), megatron_flag_names());
    throw UserError(argument.where,
                    find_key(argument.name) ? "is a key of mixtune's, and no argument of Megatron-LM's"
                                            : "mixtune knows no such argument of Megatron-LM's",
                    find_key(argument.name) ? fmt::format("give it by itself: --{}", argument.name)
                    : near.empty()          ? "leave it out, where the run does not need it"
                                            : fmt::format("did you mean '{}'?", near));
  }

  [[noreturn]] static void refuse(const MegatronArgument& argument, const MegatronFlag& flag) {
    const ForeignKey& known = *hint_of(flag);
    const bool of_nccl = argument.name.starts_with("NCCL_");
    throw UserError(argument.where,
                    known.key.empty() ? hint(known) : fmt::format("{} is not taken from here", flag.foreign.name),
                    of_nccl                ? fmt::format("export {}={}", argument.name, printable(argument.value))
                    : !known.key.empty()   ? hint(known)
                    : !flag.values.empty() ? fmt::format("set it to {}, or leave it out", alternatives(flag.values))
                                           : "leave it out");
  }

  // Handlers of what is combined, by name.
  static const std::map<std::string_view, Handler>& handlers();

  void minutes(const MegatronArgument& a) { set(a, "collective_timeout", plain(60 * number_of(a))); }
  void duration(const MegatronArgument& a) { set(a, "time_limit", fmt::format("{}m", count_of(a))); }
  void tensorboard(const MegatronArgument& a) { set(a, "report_to", "tensorboard"); }
  void decoupled(const MegatronArgument& a) {
    set(a, "lr_groups", fmt::format("{{embeddings: {0}, head: {0}}}", plain(number_of(a))));
  }

  void capacity(const MegatronArgument& a) {
    static const Key key = item_key(KeyType::kNumber, {-1e15, 1e15});
    if (std::get<double>(parse_value(key, a.value, a.where)) < 0) return say(a, "nothing: no token is dropped");
    set(a, "moe_expert_capacity_factor", a.value);
  }

  void tokenizer(const MegatronArgument& a) {
    std::string path = a.value;
    for (const std::string_view name : {"tokenizer.model", "tokenizer.json"})
      if (path == name)
        path = ".";
      else if (path.ends_with(fmt::format("/{}", name)))
        path.resize(path.size() - name.size() - 1);
    set(a, "tokenizer_name_or_path", path.empty() ? "/" : path);
  }

  void data(const MegatronArgument& a) {
    set(a, "datasets", a.value);
    set(a, "dataset_format", "megatron");
  }

  // Rows in steps of global_batch_size; Megatron-LM counts whole steps.
  int64_t steps_of_samples(const MegatronArgument& a, bool exact) const {
    const MegatronArgument* batch = find("global_batch_size");
    if (batch == nullptr)
      throw UserError(a.where, "counts rows, and mixtune steps: of how many rows is not said",
                      "give global_batch_size");
    const int64_t rows = count_of(a), of_step = count_of(*batch);
    if (rows < of_step || (exact && rows % of_step != 0))
      throw UserError(a.where, fmt::format("{} rows are no whole number of steps of {}", rows, of_step),
                      fmt::format("set it to a multiple of {}", of_step));
    return rows / of_step;
  }
  void samples(const MegatronArgument& a) { set(a, "max_steps", std::to_string(steps_of_samples(a, false))); }
  void warmup_samples(const MegatronArgument& a) {
    set(a, "warmup_steps", a.value == "0" ? "0" : std::to_string(steps_of_samples(a, true)));
  }

  void decay_iters(const MegatronArgument& a) {
    const MegatronArgument* all = find("train_iters");
    if (all == nullptr || count_of(*all) != count_of(a))
      throw UserError(a.where, "the schedule ends with the run, after train_iters", "set it to train_iters");
    say(a, hint(find_megatron_flag(a.name)->foreign));
  }

  // The least rate; 0: none.
  double least() const {
    const MegatronArgument* a = find("min_lr");
    return a ? number_of(*a) : 0;
  }
  std::string style_name() const {
    const MegatronArgument* a = find("lr_decay_style");
    return a ? a->value : "linear";  // as there
  }
  bool has_warmup() const {
    return std::ranges::any_of(std::array{"lr_warmup_iters", "lr_warmup_samples", "lr_warmup_fraction"},
                               [&](const char* name) {
                                 const MegatronArgument* a = find(name);
                                 return a && number_of(*a) > 0;
                               });
  }

  void style(const MegatronArgument& a) {
    const bool falls_to_0 = least() == 0;
    if (a.value == "inverse-square-root" && !has_warmup())
      throw UserError(a.where, "needs a warm-up, on which its rates depend", "set lr_warmup_iters");
    const std::map<std::string_view, const char*> schedules = {{"linear", falls_to_0 ? "linear" : "polynomial"},
                                                               {"cosine", falls_to_0 ? "cosine" : "cosine_with_min_lr"},
                                                               {"inverse-square-root", "inverse_sqrt"},
                                                               {"constant", "constant_with_warmup"},
                                                               {"WSD", "warmup_stable_decay"}};
    const auto found = schedules.find(a.value);
    if (found == schedules.end())
      throw UserError(a.where, "mixtune has no such schedule",
                      "use linear, cosine, inverse-square-root, constant or WSD");
    set(a, "lr_scheduler_type", found->second);
    if (a.value == "WSD" && !find("lr_wsd_decay_iters") && !find("lr_wsd_decay_samples"))
      throw UserError(a.where, "needs its steps of decay", "set lr_wsd_decay_iters");
  }

  void min_lr(const MegatronArgument& a) {
    const std::string style = style_name();
    if (least() == 0 || style == "constant") return say(a, "nothing: the schedule falls no lower anyway");
    if (style == "linear") {
      if (!find("lr_decay_style")) set(a, "lr_scheduler_type", "polynomial");
      return set(a, "lr_scheduler_kwargs", fmt::format("{{lr_end: {}}}", plain(least())));
    }
    if (style == "cosine") return set(a, "lr_scheduler_kwargs", fmt::format("{{min_lr: {}}}", plain(least())));
    if (style != "WSD" || has_warmup())
      throw UserError(a.where,
                      fmt::format("has no meaning here with lr_decay_style {}{}", printable(style),
                                  style == "WSD" ? " and a warm-up, which would begin there" : ""),
                      "leave it out");
    if (!find("lr")) throw UserError(a.where, "is a share of lr here, and that is not given", "give lr");
    say(a, "min_lr_ratio, a share of lr");
  }

  // All settings of the schedule WSD; what falls to a least rate has no others.
  void wsd(const MegatronArgument& a) {
    const MegatronArgument *steps = find("lr_wsd_decay_iters"), *rows = find("lr_wsd_decay_samples"),
                           *style = find("lr_wsd_decay_style");
    if (style_name() != "WSD") return say(a, "nothing: it is of lr_decay_style WSD");
    if (!steps && !rows) throw UserError(a.where, "needs its steps of decay", "set lr_wsd_decay_iters");
    const std::map<std::string_view, const char*> styles = {
        {"exponential", "exponential"}, {"linear", "linear"}, {"cosine", "cosine"}, {"minus_sqrt", "1-sqrt"}};
    const auto found = styles.find(style ? style->value : "exponential");
    if (found == styles.end())
      throw UserError(style->where, "mixtune has no such decay", "use exponential, linear, cosine or minus_sqrt");
    const double share = least() == 0 || !find("lr") ? 0 : least() / number_of(*find("lr"));
    set(a, "lr_scheduler_kwargs",
        fmt::format("{{num_decay_steps: {}, decay_type: {}{}}}",
                    steps ? count_of(*steps) : steps_of_samples(*rows, true), found->second,
                    share > 0 ? fmt::format(", min_lr_ratio: {}", plain(share)) : ""));
  }

  // What a run would do there without being told, and does otherwise here.
  void add_defaults() {
    struct Default {
      std::string_view name, there, key, here;
      std::string_view of = "";  // the argument without which there is no such default
    };
    constexpr Default kDefaults[] = {
        {"moe_aux_loss_coeff", "0", "moe_router_load_balancing_type", "the checkpoint's router_aux_loss_coef"},
        {"weight_decay", "0.01", "weight_decay", "0"},
        {"seed", "1234", "seed", "42"},
        {"attention_dropout", "0.1", "", "none"},
        {"hidden_dropout", "0.1", "", "none"},
        {"split", "'969, 30, 1'", "split", "all records are trained on", "data_path"},
    };
    std::vector<std::string> differences;
    for (const Default& each : kDefaults) {
      const bool said = std::ranges::any_of(run_.settings, [&](const auto& s) { return s.key == each.key; });
      if (!find(each.name) && !said && (each.of.empty() || find(each.of)))
        differences.push_back(fmt::format("{} ({}, here {})", each.name, each.there, each.here));
    }
    if (!differences.empty())
      run_.lines.push_back(fmt::format("not given, and of another default there: {}", fmt::join(differences, ", ")));
  }

  std::span<const MegatronArgument> arguments_;
  std::map<std::string_view, const MegatronArgument*> by_name_;
  MegatronRun run_;
  std::vector<UserError> refused_;
};

const std::map<std::string_view, Translator::Handler>& Translator::handlers() {
  static const std::map<std::string_view, Handler> all = {{"distributed_timeout_minutes", &Translator::minutes},
                                                          {"exit_duration_in_mins", &Translator::duration},
                                                          {"tensorboard_dir", &Translator::tensorboard},
                                                          {"decoupled_lr", &Translator::decoupled},
                                                          {"moe_expert_capacity_factor", &Translator::capacity},
                                                          {"tokenizer_model", &Translator::tokenizer},
                                                          {"data_path", &Translator::data},
                                                          {"train_data_path", &Translator::data},
                                                          {"train_samples", &Translator::samples},
                                                          {"lr_warmup_samples", &Translator::warmup_samples},
                                                          {"lr_decay_iters", &Translator::decay_iters},
                                                          {"lr_decay_style", &Translator::style},
                                                          {"min_lr", &Translator::min_lr},
                                                          {"lr_wsd_decay_iters", &Translator::wsd},
                                                          {"lr_wsd_decay_samples", &Translator::wsd},
                                                          {"lr_wsd_decay_style", &Translator::wsd}};
  return all;
}

}  // namespace

MegatronRun translate(std::span<const MegatronArgument> arguments) {
  return Translator(arguments).run();
}

}  // namespace mixtune
