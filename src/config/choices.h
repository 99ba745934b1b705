// The values of keys that are choices.
#pragma once

#include <string_view>
#include <vector>

#include "config/config.h"

namespace mixtune {

// One list of names per enum, in the order of its values.
template <class Enum>
std::vector<std::string_view> names();
template <>
inline std::vector<std::string_view> names<DatasetFormat>() {
  return {"auto", "messages", "instruction", "prompt_completion", "text", "tokenized", "megatron"};
}
template <>
inline std::vector<std::string_view> names<ChatTemplateName>() {
  return {"auto",   "mistral-v1", "mistral-v2", "mistral-v3", "mistral-v3-tekken",
          "chatml", "zephyr",     "vicuna",     "alpaca",     "llama-2"};
}
template <>
inline std::vector<std::string_view> names<LongDocuments>() {
  return {"auto", "truncate", "split", "error"};
}
template <>
inline std::vector<std::string_view> names<Schedule>() {
  return {"constant",
          "linear",
          "cosine",
          "constant_with_warmup",
          "cosine_with_min_lr",
          "cosine_warmup_with_min_lr",
          "cosine_with_restarts",
          "inverse_sqrt",
          "polynomial",
          "warmup_stable_decay"};
}
template <>
inline std::vector<std::string_view> names<RouterAuxLossType>() {
  return {"huggingface"};
}
template <>
inline std::vector<std::string_view> names<ScoreFunction>() {
  return {"softmax", "sigmoid"};
}
template <>
inline std::vector<std::string_view> names<RouterDType>() {
  return {"fp32"};
}
template <>
inline std::vector<std::string_view> names<TokenDropPolicy>() {
  return {"probs", "position"};
}
template <>
inline std::vector<std::string_view> names<AdapterKind>() {
  return {"none", "lora", "qlora"};
}
template <>
inline std::vector<std::string_view> names<LoraInit>() {
  return {"default", "pissa"};
}
template <>
inline std::vector<std::string_view> names<BasePrecision>() {
  return {"auto", "nf4", "fp8"};
}
template <>
inline std::vector<std::string_view> names<DeviceChoice>() {
  return {"auto", "cpu", "cuda"};
}
template <>
inline std::vector<std::string_view> names<Precision>() {
  return {"fp32", "bf16", "fp8", "mxfp8"};
}
template <>
inline std::vector<std::string_view> names<Fp8Scaling>() {
  return {"block", "tensor"};
}
template <>
inline std::vector<std::string_view> names<StateDType>() {
  return {"fp32", "bf16"};
}
template <>
inline std::vector<std::string_view> names<MasterWeights>() {
  return {"fp32", "none"};
}
template <>
inline std::vector<std::string_view> names<Recompute>() {
  return {"none", "selective", "full"};
}
template <>
inline std::vector<std::string_view> names<ExpertsImplementation>() {
  return {"loop", "grouped"};
}
template <>
inline std::vector<std::string_view> names<ReportTo>() {
  return {"none", "tensorboard"};
}
template <>
inline std::vector<std::string_view> names<SaveDType>() {
  return {"checkpoint", "fp32", "bf16"};
}

}  // namespace mixtune
