# Compiler flags shared by all targets, and the two ways to declare one.
add_library(mixtune_flags INTERFACE)
target_include_directories(mixtune_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(mixtune_flags INTERFACE -Wall -Wextra -Wpedantic -Werror -Wshadow -Wno-unknown-pragmas
                       -Wno-missing-field-initializers
                       # GCC 12 sees overlaps in std::string concatenation that are none (its bug 105651).
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                       -march=${MIXTUNE_MARCH} -fno-math-errno -fno-trapping-math -ffp-contract=fast)
target_link_libraries(mixtune_flags INTERFACE OpenMP::OpenMP_CXX)
# clang warns of each 'omp simd' that it does not vectorise.
target_compile_options(mixtune_flags INTERFACE $<$<CXX_COMPILER_ID:Clang>:-Wno-pass-failed>)
if(MIXTUNE_SANITIZE)
  target_compile_options(mixtune_flags INTERFACE -fsanitize=${MIXTUNE_SANITIZE} -fno-sanitize-recover=all
                         -fno-omit-frame-pointer -g1)
  target_link_options(mixtune_flags INTERFACE -fsanitize=${MIXTUNE_SANITIZE})
endif()

# mixtune_layer(NAME SOURCES... [LINK libraries...]): the library of one folder of src/.
function(mixtune_layer name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_library(mixtune_${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(mixtune_${name} PUBLIC mixtune_flags ${ARG_LINK})
endfunction()

# mixtune_test(NAME SOURCES... [LINK libraries...]): one GoogleTest program, a ctest entry for each of its tests.
function(mixtune_test name)
  if(NOT MIXTUNE_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE MIXTUNE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  # Passive waiting: tests run side by side, and threads that spin at OpenMP's barriers would starve each other.
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300 ENVIRONMENT "OMP_WAIT_POLICY=passive")
endfunction()
