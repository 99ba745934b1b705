// The groups of cases, one file each.
#pragma once

#include "conformance/conformance.h"

namespace mixtune {

ConformanceCases adapter_cases();
ConformanceCases elementwise_cases();  // rms_norm, rope, swiglu, embedding
ConformanceCases cross_entropy_cases();
ConformanceCases router_cases();     // router, its losses
ConformanceCases routing_cases();    // router_logits, permute, drop_pairs
ConformanceCases optimizer_cases();  // sum_of_squares, clip_scale, adamw, add_sum, cast, fill_normal
ConformanceCases digest_cases();
ConformanceCases eight_bit_cases();  // round_operand, quantise, products of codes, weights held as codes
ConformanceCases four_bit_cases();
ConformanceCases gemm_cases();
ConformanceCases attention_cases();
ConformanceCases cached_attention_cases();
ConformanceCases attention_cudnn_cases();  // attention_cudnn.h itself, whatever attention.h chooses

}  // namespace mixtune
