# Compiler flags shared by all targets, and the two ways to declare one.
add_library(mixtune_flags INTERFACE)
target_include_directories(mixtune_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
set(cxx_flags -Wall -Wextra -Wpedantic -Werror -Wshadow -Wno-unknown-pragmas -Wno-missing-field-initializers
    # GCC 12 sees overlaps in std::string concatenation that are none (its bug 105651).
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
    # What it sees only while it optimises depends on -march: shown, and no host's build fails of it.
    "$<$<CXX_COMPILER_ID:GNU>:-Wno-error=array-bounds;-Wno-error=stringop-overflow;-Wno-error=maybe-uninitialized>"
    -march=${MIXTUNE_MARCH} -fno-math-errno -fno-trapping-math -ffp-contract=fast)
target_compile_options(mixtune_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_flags}>")
target_link_libraries(mixtune_flags INTERFACE OpenMP::OpenMP_CXX)
if(MIXTUNE_HAS_CUDA)
  # Host functions that are constexpr may be called on the device.
  set(cuda_flags --expt-relaxed-constexpr -lineinfo --Werror=all-warnings
      -Xcompiler=-Wall,-Wextra,-Wno-unknown-pragmas,-Wno-missing-field-initializers)
  target_compile_options(mixtune_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>")
  target_include_directories(mixtune_flags SYSTEM INTERFACE ${MIXTUNE_CUDA_INCLUDES})
endif()
# clang warns of each 'omp simd' that it does not vectorise, and of what the CUDA halves alone use.
target_compile_options(mixtune_flags INTERFACE "$<$<CXX_COMPILER_ID:Clang>:-Wno-pass-failed;-Wno-unused-private-field>")
if(MIXTUNE_SANITIZE)
  # What AddressSanitizer sees anyway is not checked twice: half the time to compile.
  target_compile_options(mixtune_flags INTERFACE -fsanitize=${MIXTUNE_SANITIZE} -fno-sanitize=null,object-size,vptr
                         -fno-sanitize-recover=all -fno-omit-frame-pointer -g1
                         # The sanitizers' own calls make GCC 12 see unset members in std::regex (its bug 105562).
                         $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(mixtune_flags INTERFACE -fsanitize=${MIXTUNE_SANITIZE})
endif()

# mixtune_layer(NAME SOURCES... [CUDA sources...] [NO_CUDA sources...] [LINK libraries...]): the library of one folder
# of src/. A build for CUDA takes the sources after CUDA, another one those after NO_CUDA. With MIXTUNE_UNITY ON its
# sources are compiled by sixteens: names in a folder's anonymous namespaces differ.
function(mixtune_layer name)
  cmake_parse_arguments(ARG "" "" "CUDA;NO_CUDA;LINK" ${ARGN})
  if(MIXTUNE_HAS_CUDA)
    add_library(mixtune_${name} STATIC ${ARG_UNPARSED_ARGUMENTS} ${ARG_CUDA})
  else()
    add_library(mixtune_${name} STATIC ${ARG_UNPARSED_ARGUMENTS} ${ARG_NO_CUDA})
  endif()
  if(MIXTUNE_UNITY STREQUAL "ON")
    set_target_properties(mixtune_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)
  endif()
  target_link_libraries(mixtune_${name} PUBLIC mixtune_flags ${ARG_LINK})
endfunction()

# For tests that count allocations (src/base/count_allocations.h).
set(count_allocations ${PROJECT_SOURCE_DIR}/src/base/count_allocations.cpp)

# By it test programs find the repository (src/base/test_paths.h).
if(MIXTUNE_TESTS)
  file(RELATIVE_PATH from_build ${PROJECT_BINARY_DIR} ${PROJECT_SOURCE_DIR})
  string(REGEX REPLACE "/$" "" from_build ${from_build})
  file(CREATE_LINK ${from_build} ${PROJECT_BINARY_DIR}/source SYMBOLIC)
endif()

# mixtune_test_program(NAME): a package of tests has this program (scripts/package_tests).
function(mixtune_test_program name)
  set_property(GLOBAL APPEND PROPERTY MIXTUNE_TEST_PROGRAMS $<PATH:RELATIVE_PATH,$<TARGET_FILE:${name}>,${PROJECT_BINARY_DIR}>)
endfunction()

# mixtune_test(NAME SOURCES... [SERIAL] [LINK libraries...]): one GoogleTest program, a ctest entry for each of its
# tests. SERIAL: none runs beside another.
# With MIXTUNE_UNITY ON or TESTS its sources are compiled by sixteens.
# Tests' own sources are optimised less than what they test: compiling them is most of a build.
if(MIXTUNE_SANITIZE)
  set(test_optimization -O0)
else()
  set(test_optimization -O1)
endif()
function(mixtune_test name)
  if(NOT MIXTUNE_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "SERIAL" "" "LINK" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  if(MIXTUNE_UNITY STREQUAL "ON" OR MIXTUNE_UNITY STREQUAL "TESTS")
    set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)
  endif()
  target_compile_options(${name} PRIVATE "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<NOT:$<CONFIG:Debug>>>:${test_optimization}>")
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest_main)
  mixtune_test_program(${name})
  # Passive waiting: tests run side by side, and threads that spin at OpenMP's barriers would starve each other.
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300 RUN_SERIAL ${ARG_SERIAL}
                       ENVIRONMENT "OMP_WAIT_POLICY=passive")
endfunction()
