// --megatron_args: how arguments are read, and what each becomes.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <map>

#include "base/error.h"
#include "base/test_paths.h"
#include "config/keys.h"
#include "config/megatron_flags.h"
#include "config/megatron_run.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;
using testing::UnorderedElementsAre;

std::vector<std::pair<std::string, std::string>> read(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> arguments;
  for (const MegatronArgument& argument : parse_megatron_arguments(text, "run.args"))
    arguments.emplace_back(argument.name, argument.value);
  return arguments;
}

MegatronRun run_of(const std::string& text) {
  return translate(parse_megatron_arguments(text, "run.args"));
}

MegatronRun run_of_fixture(const std::string& name) {
  return translate(read_megatron_arguments(source_path("tests/fixtures/megatron/" + name)));
}

std::map<std::string, std::string> settings(const MegatronRun& run) {
  std::map<std::string, std::string> settings;
  for (const OtherSetting& setting : run.settings) {
    EXPECT_TRUE(settings.emplace(setting.key, setting.value).second) << setting.key;
    EXPECT_NE(find_key(setting.key), nullptr) << setting.key;
  }
  return settings;
}

std::map<std::string, std::string> settings(const std::string& text) {
  return settings(run_of(text));
}

template <class F>
std::string message_of(F&& body) {
  try {
    body();
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

std::string refusal(const std::string& text) {
  return message_of([&] { run_of(text); });
}

TEST(MegatronArguments, AreWordsAsAShellHasThem) {
  EXPECT_THAT(
      read("--num-experts 8 --swiglu \\\n  --lr=1e-5 # a comment\n--save 'my out' --data-path 0.3 \"a b\" 0.7 c\\ d\n"
           "--min-lr -1 --x=--y"),
      ElementsAre(Pair("num_experts", "8"), Pair("swiglu", "true"), Pair("lr", "1e-5"), Pair("save", "my out"),
                  Pair("data_path", "0.3 a b 0.7 c d"), Pair("min_lr", "-1"), Pair("x", "--y")));
  EXPECT_THAT(read("\n# first\n  --bf16\n"), ElementsAre(Pair("bf16", "true")));
  // What begins with a quote is a value.
  EXPECT_THAT(read("--finetune --lr=\"1e-4\" --m'i'n-lr \"--1\" --save '-out' --x \\-y"),
              ElementsAre(Pair("finetune", "true"), Pair("lr", "1e-4"), Pair("min_lr", "--1"), Pair("save", "-out"),
                          Pair("x", "-y")));
  const auto all = parse_megatron_arguments("--a\n\n--b 'x\ny' \\\n--c=1", "run.args");
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].where, "run.args:1: --a");
  EXPECT_EQ(all[1].where, "run.args:3: --b");
  EXPECT_EQ(all[2].where, "run.args:5: --c");
  EXPECT_EQ(all[2].shown, "--c 1");
}

TEST(MegatronArguments, MayBeYamlWithHeadings) {
  EXPECT_THAT(
      read("num_experts: 8\n--swiglu: true\nload: null\ndata_path: [0.3, a, 0.7, b]\nmodel:\n  num-layers: 2\n"),
      ElementsAre(Pair("num_experts", "8"), Pair("swiglu", "true"), Pair("data_path", "0.3 a 0.7 b"),
                  Pair("num_layers", "2")));
  for (const char* start : {"---\n", "# of a run\n\n--- \r\n", "%YAML 1.2\n---\n"})
    EXPECT_THAT(read(fmt::format("{}lr: 1\n", start)), ElementsAre(Pair("lr", "1"))) << start;
  EXPECT_THAT(read_megatron_arguments("--lr 1 --bf16")[1].where, "--megatron_args: --bf16");
}

TEST(MegatronArguments, WhatIsNoneIsOneClearLine) {
  const auto bad = [](const std::string& text) {
    const std::string message = message_of([&] { read(text); });
    EXPECT_EQ(message.find('\n'), message.npos) << message;
    return message;
  };
  EXPECT_THAT(bad("-- torchrun"), HasSubstr("run.args:1: '--' is no flag; give the arguments alone"));
  EXPECT_THAT(bad("--lr 1\n--lr 2"), HasSubstr("run.args:2: --lr: is given twice: run.args:1: --lr"));
  EXPECT_THAT(bad("a: 1\nmodel:\n  --a: 2\n"), HasSubstr("is given twice"));
  EXPECT_THAT(bad("--seq-length $LENGTH"), HasSubstr("run.args:1: '$' is for a shell"));
  EXPECT_THAT(bad("--save 'out"), HasSubstr("the quote ' is not closed"));
  EXPECT_THAT(bad("--save \x01"), HasSubstr("control character"));
  EXPECT_THAT(bad("model:\n  deep:\n    x: 1\n"), HasSubstr("is nested deeper"));
  EXPECT_THAT(bad("- --lr\n- 1\n"), HasSubstr("'-' is no flag"));
  EXPECT_THAT(bad("a: &x 1\n"), HasSubstr("anchor"));
  EXPECT_THAT(bad("# nothing\n"), HasSubstr("has no arguments"));
  EXPECT_THAT(message_of([] { read_megatron_arguments("none.args"); }), HasSubstr("none.args"));
  EXPECT_THAT(message_of([] { read_megatron_arguments("--x 1 --x"); }),
              HasSubstr("--megatron_args: --x: is given twice"));
}

TEST(MegatronFlags, EachIsTakenAsItsHintSays) {
  for (const std::string_view name : megatron_flag_names()) {
    const MegatronFlag& flag = *find_megatron_flag(name);
    const ForeignKey* hint = flag.foreign.tools != 0 ? &flag.foreign : find_foreign_key(name);
    const bool own = find_key(name) != nullptr;
    EXPECT_TRUE(own || hint != nullptr) << name;
    using Take = MegatronFlag::Take;
    if (flag.take == Take::kKey) {
      EXPECT_TRUE(own || !hint->key.empty()) << name;
    }
    if (flag.take == Take::kNothing || flag.take == Take::kSwitch || flag.take == Take::kRefused ||
        flag.take == Take::kOnly) {
      EXPECT_FALSE(own) << name;
    }
    EXPECT_EQ(flag.take == Take::kOnly || flag.take == Take::kShape, !flag.values.empty()) << name;
  }
}

// The blocks of a public recipe.
TEST(MegatronRecipe, Layout) {
  const MegatronRun run = run_of_fixture("layout.yaml");
  EXPECT_THAT(settings(run),
              UnorderedElementsAre(Pair("expert_model_parallel_size", "8"), Pair("moe_token_drop_policy", "probs"),
                                   Pair("moe_aux_loss_coeff", "0.02"), Pair("moe_router_topk", "2")));
  ASSERT_EQ(run.shape.size(), 1u);
  EXPECT_EQ(run.shape[0].key, "num_local_experts");
  EXPECT_EQ(run.shape[0].value, "8");
  ASSERT_EQ(run.lines.size(), 10u);
  EXPECT_EQ(run.lines[0], "model_parallel_size: 1 -> nothing: it is so here");
  EXPECT_EQ(run.lines[2], "expert_model_parallel_size: 8 -> expert_model_parallel_size: 8");
  EXPECT_EQ(run.lines[3], "num_experts: 8 -> held against config.json: num_local_experts");
  EXPECT_THAT(run.lines[5], HasSubstr("-> moe_token_drop_policy: probs"));
  EXPECT_THAT(run.lines[6], HasSubstr("-> moe_aux_loss_coeff: 0.02"));
  EXPECT_THAT(run.lines[9], HasSubstr("weight_decay (0.01, here 0)"));
}

TEST(MegatronRecipe, Data) {
  EXPECT_THAT(settings(run_of_fixture("data.yaml")),
              UnorderedElementsAre(Pair("datasets", "/data/sft_text_document"), Pair("dataset_format", "megatron"),
                                   Pair("split", "990,9,1"), Pair("max_seq_length", "4096"),
                                   Pair("tokenizer_name_or_path", "/checkpoints/8x7b"),
                                   Pair("reset_position_ids", "true"), Pair("eod_mask_loss", "true")));
}

TEST(MegatronRecipe, VariablesOfTheNetworkAreForTheEnvironment) {
  const std::string error = message_of([] { run_of_fixture("network.yaml"); });
  for (const char* part :
       {"network.yaml:6: NCCL_IB_HCA: not a key: set it in the environment, NCCL reads it there; export "
        "NCCL_IB_HCA=mlx5\n",
        "export NCCL_IB_GID_INDEX=3\n", "export NCCL_SOCKET_IFNAME=eth0\n", "export NCCL_DEBUG=WARN\n",
        "export NCCL_ALGO=Tree\n", "--megatron_args: 5 of these"})
    EXPECT_THAT(error, HasSubstr(part));
}

TEST(MegatronRecipe, AnotherNameOfTheCapacityIsRefused) {
  const std::string error = message_of([] { run_of_fixture("router.yaml"); });
  EXPECT_THAT(error, HasSubstr("router.yaml:5: moe_capacity_factor: moe_capacity_factor is not taken from here; use "
                               "'moe_expert_capacity_factor'"));
}

TEST(MegatronRun, CapacityOfExperts) {
  const auto taken = run_of(
      "--moe-expert-capacity-factor 1.25 --moe-token-drop-policy position "
      "--moe-pad-expert-input-to-capacity");
  EXPECT_THAT(settings(taken), UnorderedElementsAre(Pair("moe_expert_capacity_factor", "1.25"),
                                                    Pair("moe_token_drop_policy", "position"),
                                                    Pair("moe_pad_expert_input_to_capacity", "true")));
  const auto none = run_of("--moe-expert-capacity-factor -1");
  EXPECT_THAT(settings(none), testing::IsEmpty());
  EXPECT_EQ(none.lines[0], "--moe-expert-capacity-factor -1 -> nothing: no token is dropped");
}

TEST(MegatronRecipe, VersionsSayNothing) {
  const MegatronRun run = run_of_fixture("environment.yaml");
  EXPECT_TRUE(run.settings.empty());
  EXPECT_EQ(run.lines.size(), 7u);
}

TEST(MegatronRun, Sections) {
  const MegatronRun run = run_of_fixture("sections.yaml");
  EXPECT_THAT(settings(run), UnorderedElementsAre(Pair("max_steps", "3"), Pair("global_batch_size", "4"),
                                                  Pair("per_device_train_batch_size", "2"),
                                                  Pair("learning_rate", "1.0e-3"), Pair("weight_decay", "0.1")));
  EXPECT_EQ(run.shape.size(), 2u);
}

TEST(MegatronRun, SwitchesAndUnits) {
  EXPECT_THAT(
      settings("--bf16 --recompute-activations --distributed-timeout-minutes 5 --exit-duration-in-mins 90 "
               "--tensorboard-dir tb --no-save-optim --deterministic-mode --decoupled-lr 1e-4"),
      UnorderedElementsAre(Pair("precision", "bf16"), Pair("recompute", "selective"), Pair("collective_timeout", "300"),
                           Pair("time_limit", "90m"), Pair("report_to", "tensorboard"), Pair("save_only_model", "true"),
                           Pair("deterministic", "true"), Pair("lr_groups", "{embeddings: 0.0001, head: 0.0001}")));
  EXPECT_TRUE(settings("bf16: false\nmoe_grouped_gemm: no\n").empty());
  EXPECT_THAT(
      settings("--train-samples 1030 --lr-warmup-samples 20 --global-batch-size 10"),
      UnorderedElementsAre(Pair("max_steps", "103"), Pair("warmup_steps", "2"), Pair("global_batch_size", "10")));
  EXPECT_THAT(settings("--tokenizer-model tokenizer.model"), ElementsAre(Pair("tokenizer_name_or_path", ".")));
  EXPECT_THAT(settings("--lr-decay-iters 9 --train-iters 9"), ElementsAre(Pair("max_steps", "9")));
  // Two that agree are one.
  EXPECT_THAT(settings("--load a --pretrained-checkpoint a"), ElementsAre(Pair("model_name_or_path", "a")));
}

TEST(MegatronRun, SchedulesAreThoseOfTheTable) {
  using Map = std::map<std::string, std::string>;
  const auto of = [](const std::string& text) {
    Map all = settings(text);
    std::erase_if(all, [](const auto& each) { return !each.first.starts_with("lr_scheduler"); });
    return all;
  };
  const auto with = [](const char* type, const char* kwargs = "") {
    Map all = {{"lr_scheduler_type", type}};
    if (*kwargs) all.emplace("lr_scheduler_kwargs", kwargs);
    return all;
  };
  EXPECT_EQ(of("--lr 1"), Map());
  EXPECT_EQ(of("--lr-decay-style linear --min-lr 0"), with("linear"));
  EXPECT_EQ(of("--lr-decay-style linear --min-lr 1e-6"), with("polynomial", "{lr_end: 1e-06}"));
  EXPECT_EQ(of("--min-lr 1e-6"), with("polynomial", "{lr_end: 1e-06}"));
  EXPECT_EQ(of("--lr-decay-style cosine"), with("cosine"));
  EXPECT_EQ(of("--lr-decay-style cosine --min-lr 1e-6"), with("cosine_with_min_lr", "{min_lr: 1e-06}"));
  EXPECT_EQ(of("--lr-decay-style constant --min-lr 1e-6"), with("constant_with_warmup"));
  EXPECT_EQ(of("--lr-decay-style inverse-square-root --lr-warmup-iters 5"), with("inverse_sqrt"));
  EXPECT_EQ(of("--lr-decay-style WSD --lr-wsd-decay-iters 7"),
            with("warmup_stable_decay", "{num_decay_steps: 7, decay_type: exponential}"));
  EXPECT_EQ(of("--lr-decay-style WSD --lr-wsd-decay-iters 7 --lr-wsd-decay-style minus_sqrt --lr 1e-3 --min-lr 1e-4"),
            with("warmup_stable_decay", "{num_decay_steps: 7, decay_type: 1-sqrt, min_lr_ratio: 0.1}"));
  EXPECT_THAT(refusal("--lr-decay-style inverse-square-root"), HasSubstr("needs a warm-up"));
  EXPECT_THAT(refusal("--lr-decay-style inverse-square-root --lr-warmup-iters 5 --min-lr 1"),
              HasSubstr("--min-lr: has no meaning here with lr_decay_style inverse-square-root"));
  EXPECT_THAT(refusal("--lr-decay-style WSD"), HasSubstr("set lr_wsd_decay_iters"));
  EXPECT_THAT(refusal("--lr-decay-style WSD --min-lr 1 --lr-wsd-decay-iters 3"), HasSubstr("give lr"));
  EXPECT_THAT(refusal("--lr-decay-style WSD --min-lr 1 --lr-wsd-decay-iters 3 --lr-warmup-iters 2 --lr 2"),
              HasSubstr("a warm-up"));
  EXPECT_THAT(refusal("--lr-decay-style sigmoid"), HasSubstr("mixtune has no such schedule"));
}

TEST(MegatronRun, TheRoutersLossesAreKeys) {
  EXPECT_THAT(settings("--moe-aux-loss-coeff 0.01 --moe-z-loss-coeff 1e-3"),
              UnorderedElementsAre(Pair("moe_aux_loss_coeff", "0.01"), Pair("moe_z_loss_coeff", "1e-3")));
  EXPECT_THAT(settings("--moe-router-load-balancing-type aux_loss seq_aux_loss --moe-aux-loss-coeff 0.01 0.02"),
              UnorderedElementsAre(Pair("moe_router_load_balancing_type", "aux_loss seq_aux_loss"),
                                   Pair("moe_aux_loss_coeff", "0.01 0.02")));
  EXPECT_THAT(
      settings("--moe-router-load-balancing-type sinkhorn --moe-aux-loss-coeff 0"),
      UnorderedElementsAre(Pair("moe_router_load_balancing_type", "sinkhorn"), Pair("moe_aux_loss_coeff", "0")));
}

TEST(MegatronRun, TheRoutersScoresAreKeys) {
  EXPECT_THAT(settings("--moe-router-topk 3 --moe-router-score-function sigmoid --moe-router-pre-softmax "
                       "--moe-router-topk-scaling-factor 2.5 --moe-router-dtype fp32"),
              UnorderedElementsAre(Pair("moe_router_topk", "3"), Pair("moe_router_score_function", "sigmoid"),
                                   Pair("moe_router_pre_softmax", "true"),
                                   Pair("moe_router_topk_scaling_factor", "2.5"), Pair("moe_router_dtype", "fp32")));
  EXPECT_THAT(settings("moe_router_pre_softmax: false\n"), ElementsAre(Pair("moe_router_pre_softmax", "false")));
}

TEST(MegatronRun, WhatIsLackingIsRefusedWithWhyAndWhat) {
  for (const auto& [text, message] : std::vector<std::pair<const char*, const char*>>{
           {"--tensor-model-parallel-size 2",
            "--tensor-model-parallel-size: not supported: only experts are split over "
            "ranks, by 'expert_model_parallel_size'; set it to 1, or leave it out"},
           {"--context-parallel-size 2", "not supported: only experts are split"},
           {"--sequence-parallel", "set it to false, or leave it out"},
           {"--hidden-dropout 0.1", "there is no dropout; set it to 0"},
           {"--normalization LayerNorm", "set it to RMSNorm"},
           {"--moe-router-dtype fp64", "--moe-router-dtype: unknown value 'fp64'; not supported: logits are sums"},
           {"--moe-router-score-function relu", "use one of: softmax, sigmoid"},
           {"--moe-router-topk 0", "--moe-router-topk: 0 is out of range"},
           {"--moe-expert-capacity-factor 0", "0"},
           {"--fp16", "fp16 is not taken from here; use 'precision'"},
           {"--fp8-format hybrid", "fp8_format is not taken from here; use 'fp8_scaling'"},
           {"--optimizer sgd", "the optimizer is always AdamW"},
           {"--tokenizer-type GPT2BPETokenizer",
            "tokenizer.model' says it; set it to HuggingFaceTokenizer or Llama2Tokenizer or"},
           {"--lr-decay-iters 9 --train-iters 10", "the schedule ends with the run"},
           {"--train-samples 100", "give global_batch_size"},
           {"--train-samples 100 --global-batch-size 200", "no whole number of steps"},
           {"--lr-warmup-samples 15 --global-batch-size 10", "set it to a multiple of 10"},
           {"--load a --pretrained-checkpoint b", "would make model_name_or_path b, and run.args:1: --load says a"},
           {"--lr fast", "--lr: 'fast' is not a number"},
           {"--num-expert 8", "mixtune knows no such argument of Megatron-LM's; did you mean 'num_experts'?"},
           {"--sft", "leave it out, where the run does not need it"},
           {"--learning-rate 1",
            "is a key of mixtune's, and no argument of Megatron-LM's; give it by itself: "
            "--learning_rate"},
           {"--finetune '--lr=1e-4'",
            "run.args:1: --finetune: takes no value but true or false, and has '--lr=1e-4'; leave the value out"},
           {"--overlap-grad-reduce 1e-4", "takes no value but true or false, and has '1e-4'"},
           {"overlap_grad_reduce: 2", "run.args:1: overlap_grad_reduce: takes no value but true or false, and has '2'"},
           {"--rampup-batch-size 1 2 3", "every step has as many rows"}})
    EXPECT_THAT(refusal(text), HasSubstr(message)) << text;
  const std::string two = refusal("--mock-data --rampup-batch-size 1 2 3 --lr 1");
  EXPECT_THAT(two,
              HasSubstr("run.args:1: --mock-data: not supported: name real data; set it to false, or leave it out\n"));
  EXPECT_THAT(two, HasSubstr("--megatron_args: 2 of these"));
}

// Of what needs not be told, too.
TEST(MegatronRun, SwitchesMayBeSaidEitherWay) {
  for (const char* text : {"--finetune --num-workers 2 --eval-iters=0", "finetune: true\n", "finetune: no\n"}) {
    EXPECT_THAT(run_of(text).lines.front(), HasSubstr("-> not needed: a run always starts with fresh")) << text;
    EXPECT_TRUE(settings(text).empty()) << text;
  }
}

TEST(MegatronRun, OtherDefaultsAreTold) {
  EXPECT_EQ(
      run_of("--lr 1").lines.back(),
      "not given, and of another default there: moe_aux_loss_coeff (0, here the checkpoint's router_aux_loss_coef), "
      "weight_decay "
      "(0.01, here 0), seed (1234, here 42), attention_dropout (0.1, here none), hidden_dropout (0.1, here none)");
  EXPECT_EQ(run_of("--moe-router-load-balancing-type none --weight-decay 0 --seed 1 --attention-dropout 0 "
                   "--hidden-dropout 0")
                .lines.size(),
            5u);
  const char* split = "split ('969, 30, 1', here all records are trained on)";
  EXPECT_THAT(run_of("--data-path a").lines.back(), HasSubstr(split));
  for (const char* other : {"--data-path a --split 1,0,0", "--train-data-path a", "--lr 1"})
    EXPECT_THAT(run_of(other).lines.back(), Not(HasSubstr("split ("))) << other;
}

// The file and flags go before them.
TEST(MegatronRun, FileAndFlagsGoFirst) {
  const MegatronRun run = run_of("--lr 1e-3 --weight-decay 0.5 --seed 3");
  const Config config = parse_config("weight_decay: 0.25\n", "run.yaml", {{"learning_rate", "1e-4"}}, run.settings);
  EXPECT_EQ(config.optimizer.learning_rate, 1e-4);
  EXPECT_EQ(config.optimizer.weight_decay, 0.25);
  EXPECT_EQ(config.machine.seed, 3u);
  EXPECT_EQ(config.where("seed"), "run.args:1: --seed");
}

}  // namespace
}  // namespace mixtune
