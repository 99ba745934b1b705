// The tables of other trainers' keys and values are true of our own, and docs/coming-from.md is made of them.
#include "config/foreign.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "base/test_paths.h"
#include "config/keys.h"
#include "config/load.h"
#include "config/testing.h"

namespace mixtune {
namespace {

// Whether `text`, "key" or "key: value", can be written in a config.
bool can_be_written(const std::string& text) {
  const size_t colon = text.find(": ");
  const Key* key = find_key(text.substr(0, colon));
  if (key == nullptr) return false;
  if (colon != text.npos) parse_value(*key, text.substr(colon + 2), text);
  return true;
}

TEST(Foreign, NamesAreOnceAndNotOurs) {
  std::set<std::string_view> names;
  for (const ForeignKey& foreign : foreign_keys()) {
    EXPECT_EQ(find_key(foreign.name), nullptr) << foreign.name;
    EXPECT_TRUE(names.insert(foreign.name).second) << foreign.name << " stands twice";
    EXPECT_EQ(foreign.name.find('-'), foreign.name.npos) << foreign.name;
    EXPECT_NE(foreign.tools, 0u) << foreign.name;
  }
}

TEST(Foreign, WhatToWriteCanBeWritten) {
  for (const ForeignKey& foreign : foreign_keys()) {
    if (foreign.key.empty())
      EXPECT_FALSE(foreign.note.empty()) << foreign.name;
    else
      EXPECT_TRUE(can_be_written(std::string(foreign.key))) << foreign.name;
  }
}

TEST(Foreign, NotesNameOurKeys) {
  const std::regex code("`([a-z_]+(: [a-z0-9_]+)?)`");
  const std::set<std::string> not_keys = {"to_json",       "text", "path", "type", "data",
                                          "instruct_data", "full", "sft",  "pt",   "all"};
  for (const ForeignKey& foreign : foreign_keys()) {
    const std::string note(foreign.note);
    for (std::sregex_iterator match(note.begin(), note.end(), code), end; match != end; ++match) {
      const std::string word = (*match)[1];
      const std::string_view target_name =
          foreign.key == "lr_scheduler_kwargs" ? "lr_scheduler_type" : foreign.key.substr(0, foreign.key.find(':'));
      const Key* target = find_key(target_name);
      const bool value = target != nullptr && std::ranges::find(target->choices, word) != target->choices.end();
      EXPECT_TRUE(can_be_written(word) || value || not_keys.contains(word)) << foreign.name << ": " << word;
    }
  }
}

TEST(Foreign, ValuesAreOfOurKeys) {
  for (const ForeignValue& foreign : foreign_values()) {
    const Key* key = find_key(foreign.key);
    ASSERT_NE(key, nullptr) << foreign.key;
    const auto is_choice = [&](std::string_view value) {
      return std::ranges::find(key->choices, value) != key->choices.end();
    };
    EXPECT_FALSE(is_choice(foreign.value)) << foreign.value;
    EXPECT_TRUE(foreign.instead.empty() ? !foreign.note.empty() : is_choice(foreign.instead)) << foreign.value;
  }
}

// A hint is for one line of a terminal.
TEST(Foreign, HintsArePlainAndShort) {
  for (const ForeignKey& foreign : foreign_keys()) {
    EXPECT_EQ(hint(foreign).find('`'), std::string::npos) << hint(foreign);
    EXPECT_LE(hint(foreign).size(), 140u) << hint(foreign);
  }
}

TEST(Foreign, TheTableComesBeforeTheNearestName) {
  EXPECT_EQ(error_of("micro_batch_size: 2\n"),
            "run.yaml:1: unknown key 'micro_batch_size'; use 'per_device_train_batch_size' (rows of a micro-batch on "
            "one rank)");
  for (const auto& [name, hint] : std::vector<std::pair<std::string, std::string>>{
           {"tensor_model_parallel_size", "not supported: only experts are split"},
           {"attn_implementation", "not needed: the fastest"},
           {"dataset_name", "use 'train_file'"},
           {"lora_rank", "use 'lora_r'"},
           {"NCCL_DEBUG", "not a key: set it in the environment"}})
    EXPECT_THAT(error_of(name + ": 1\n"), testing::HasSubstr("'" + name + "'; " + hint)) << name;
}

// Every setting of the Megatron-Core recipe for Mixtral, and what its preprocessing takes.
TEST(Foreign, NoSettingOfTheMegatronRecipeIsUnheardOf) {
  for (const char* name : {"model_parallel_size",
                           "tensor_model_parallel_size",
                           "pipeline_model_parallel_size",
                           "expert_model_parallel_size",
                           "num_experts",
                           "moe_router_topk",
                           "moe_token_drop_policy",
                           "moe_aux_loss_coeff",
                           "sequence_parallel",
                           "data_parallel_size",
                           "input",
                           "output_prefix",
                           "tokenizer_type",
                           "tokenizer_model",
                           "workers",
                           "partitions",
                           "append_eod",
                           "data_path",
                           "split",
                           "seq_length",
                           "reset_position_ids",
                           "eod_mask_loss",
                           "NCCL_IB_HCA",
                           "NCCL_IB_GID_INDEX",
                           "NCCL_SOCKET_IFNAME",
                           "NCCL_DEBUG",
                           "NCCL_ALGO",
                           "moe_use_overlap",
                           "moe_token_dispatcher_type",
                           "moe_capacity_factor",
                           "moe_pad_expert_input_to_capacity",
                           "moe_z_loss_coeff",
                           "log_throughput"})
    EXPECT_TRUE(find_key(name) != nullptr || find_foreign_key(name) != nullptr) << name;
}

TEST(Foreign, AllUnknownKeysAtOnceEachWithItsPlace) {
  EXPECT_EQ(error_of("base_model: x\nseed: fast\nsequence_len: 1\nlearing_rate: 1\n"),
            "run.yaml:1: unknown key 'base_model'; use 'model_name_or_path' (a folder)\n"
            "run.yaml:3: unknown key 'sequence_len'; use 'max_seq_length'\n"
            "run.yaml:4: unknown key 'learing_rate'; did you mean 'learning_rate'?\n"
            "run.yaml: 3 of these; docs/coming-from.md says what other trainers' keys are called here");
}

TEST(Foreign, NestedValuesOfOtherTrainersAreNamed) {
  EXPECT_EQ(
      error_of("seed: 1\ntest_datasets:\n  - path: a.jsonl\n    type: alpaca\nval_set_size: 0.1\n"),
      "run.yaml:2: unknown key 'test_datasets'; use 'validation_file' (the 'path' of each); nested values are not "
      "allowed: see docs/coming-from.md\n"
      "run.yaml:5: unknown key 'val_set_size'; use 'validation_split_percentage' (in percent: 0.05 there is 5 here)\n"
      "run.yaml: 2 of these; docs/coming-from.md says what other trainers' keys are called here");
  EXPECT_EQ(error_of("train_file:\n  - a\n  - path: b\n"),
            "run.yaml:3: train_file: nested values are not allowed; write one 'key: value' a line, and close every "
            "bracket");
}

TEST(Foreign, ManyUnknownKeysAreCutShort) {
  std::string text;
  for (int i = 0; i < 900; ++i) text += fmt::format("zzzzzzzzzz{}: 1\n", i);
  const std::string error = error_of(text);
  EXPECT_EQ(std::ranges::count(error, '\n'), 50);
  EXPECT_THAT(error, testing::HasSubstr("run.yaml: 900 of these"));
}

TEST(Foreign, ValuesOfOtherTrainers) {
  EXPECT_EQ(error_of("precision: fp4\n"),
            "run.yaml:1: precision: unknown value 'fp4'; not supported; fp8 and mxfp8 are the lowest");
  EXPECT_EQ(error_of("precision: bfloat16\n"), "run.yaml:1: precision: unknown value 'bfloat16'; use 'bf16'");
  for (const std::string value : {"fp64", "bf81", "fp31"})  // no slips of the pen, though only letters away
    EXPECT_EQ(error_of("precision: " + value + "\n"),
              "run.yaml:1: precision: unknown value '" + value + "'; use one of: fp32, bf16, fp8, mxfp8");
  EXPECT_THAT(error_of("adam_beta3: 0.9\n"), testing::EndsWith("'mixtune train --help' lists the keys"));
  EXPECT_THAT(error_of("dataset_format: sharegpt\n"), testing::EndsWith("use 'messages'"));
}

struct Page {
  Tool tool;
  const char* title;
};

std::string row(const ForeignKey& foreign) {
  return fmt::format("| `{}` | {} | {} |", foreign.name, foreign.key.empty() ? "" : fmt::format("`{}`", foreign.key),
                     foreign.note);
}

// The rows of tables below the heading `title` of docs/coming-from.md.
std::vector<std::string> rows_below(const std::string& title) {
  std::ifstream file(source_path("docs/coming-from.md"));
  std::vector<std::string> rows;
  bool here = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) here = line == "## " + title;
    if (here && line.starts_with("| `")) rows.push_back(line);
  }
  return rows;
}

void expect_rows(const std::string& title, const std::vector<std::string>& rows) {
  EXPECT_EQ(rows_below(title), rows) << "The table below '## " << title << "' must be:\n"
                                     << fmt::format("{}", fmt::join(rows, "\n"));
}

TEST(Docs, ComingFromListsTheKeys) {
  for (const Page& page : {Page{kTransformers, "transformers and TRL"}, Page{kAxolotl, "axolotl"},
                           Page{kLlamaFactory, "LLaMA-Factory"}, Page{kMistralFinetune, "mistral-finetune"},
                           Page{kMegatron, "Megatron-LM"}, Page{kLaunchers, "DeepSpeed, FSDP, Accelerate"}}) {
    std::vector<std::string> rows;
    for (const ForeignKey& foreign : foreign_keys())
      if ((foreign.tools & page.tool) != 0) rows.push_back(row(foreign));
    expect_rows(page.title, rows);
  }
}

TEST(Docs, ComingFromListsTheValues) {
  std::vector<std::string> rows;
  for (const ForeignValue& foreign : foreign_values())
    rows.push_back(fmt::format("| `{}: {}` | {} | {} |", foreign.key, foreign.value,
                               foreign.instead.empty() ? "" : fmt::format("`{}`", foreign.instead), foreign.note));
  expect_rows("Values", rows);
}

}  // namespace
}  // namespace mixtune
