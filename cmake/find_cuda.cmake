# Finds what a build for CUDA needs: on the machine, else in .deps, where scripts/cuda puts what it lacks. Sets
#   MIXTUNE_NVCC            a compiler of CUDA 13 or newer, with its headers and its static runtime beside it
#   MIXTUNE_CUDA_INCLUDES   the headers of the toolkit, cuBLASLt, cuDNN, NCCL and NVRTC
#   MIXTUNE_CUDNN_FRONTEND  the headers of cudnn-frontend
#   MIXTUNE_CUDA_MISSING    the parts that are nowhere: cuda, libraries, cudnn-frontend (cmake/cuda-requirements.txt)
# With MIXTUNE_CUDA_PINNED, what the machine has is passed over. As a script (cmake -P), this looks at the machine alone
# and prints what it lacks.
get_filename_component(cuda_deps ${CMAKE_CURRENT_LIST_DIR}/../.deps ABSOLUTE)
get_filename_component(cudacxx_folder "$ENV{CUDACXX}" DIRECTORY)
set(cuda_toolkits ${cudacxx_folder} $ENV{CUDA_HOME} ENV PATH /usr/local/cuda)
set(cuda_includes /usr/include /usr/include/x86_64-linux-gnu)
if(MIXTUNE_CUDA_PINNED)
  set(cuda_toolkits "")
  set(cuda_includes "")
endif()
if(CMAKE_SCRIPT_MODE_FILE)
  set(cuda_deps /nonexistent)
endif()

# The folder that holds a toolkit's bin.
function(mixtune_cuda_root nvcc result)
  get_filename_component(root ${nvcc} REALPATH)
  get_filename_component(root ${root} DIRECTORY)
  get_filename_component(root ${root} DIRECTORY)
  set(${result} ${root} PARENT_SCOPE)
endfunction()

function(mixtune_check_nvcc good nvcc)
  mixtune_cuda_root(${nvcc} root)
  execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE version ERROR_QUIET)
  string(REGEX MATCH "release ([0-9.]+)" version "${version}")
  file(GLOB runtime ${root}/lib*/libcudart_static.a)
  if(NOT version OR CMAKE_MATCH_1 VERSION_LESS 13.0 OR NOT runtime OR NOT EXISTS ${root}/include/cuda_runtime.h OR
     NOT EXISTS ${root}/include/nvtx3/nvToolsExt.h OR NOT EXISTS ${root}/include/cccl/cub/cub.cuh)
    set(${good} FALSE PARENT_SCOPE)
  endif()
endfunction()

# Of the lines '#define PREFIX_MAJOR n' and '#define PREFIX_MINOR n' of a header; 0 where it is not there.
function(mixtune_header_version result header prefix)
  set(text "")
  if(EXISTS ${header})
    file(STRINGS ${header} text REGEX "define ${prefix}_(MAJOR|MINOR) ")
  endif()
  string(REGEX MATCH "MAJOR ([0-9]+).*MINOR ([0-9]+)" text "${text}")
  set(${result} 0${CMAKE_MATCH_1}.${CMAKE_MATCH_2} PARENT_SCOPE)
endfunction()

function(mixtune_check_cudnn good folder)
  mixtune_header_version(version ${folder}/cudnn_version.h CUDNN)
  if(version VERSION_LESS 9.19)
    set(${good} FALSE PARENT_SCOPE)
  endif()
endfunction()

# Of the major version that programs open, and with all that mixtune calls.
function(mixtune_check_nccl good folder)
  mixtune_header_version(version ${folder}/nccl.h NCCL)
  if(version VERSION_LESS 2.18 OR NOT version VERSION_LESS 3)
    set(${good} FALSE PARENT_SCOPE)
  endif()
endfunction()

set(MIXTUNE_CUDA_MISSING "")
find_program(MIXTUNE_NVCC nvcc VALIDATOR mixtune_check_nvcc NO_DEFAULT_PATH
             PATHS ${cuda_toolkits} ${cuda_deps}/cuda/nvidia/cu13 PATH_SUFFIXES bin)
if(MIXTUNE_NVCC)
  mixtune_cuda_root(${MIXTUNE_NVCC} MIXTUNE_CUDA_ROOT)
else()
  list(APPEND MIXTUNE_CUDA_MISSING cuda)
endif()

list(PREPEND cuda_includes ${MIXTUNE_CUDA_ROOT}/include)
find_path(MIXTUNE_CUBLASLT cublasLt.h NO_DEFAULT_PATH PATHS ${cuda_includes} ${cuda_deps}/libraries/nvidia/cu13/include)
find_path(MIXTUNE_CUDNN cudnn.h VALIDATOR mixtune_check_cudnn NO_DEFAULT_PATH
          PATHS ${cuda_includes} ${cuda_deps}/libraries/nvidia/cudnn/include)
find_path(MIXTUNE_NVRTC nvrtc.h NO_DEFAULT_PATH PATHS ${cuda_includes} ${cuda_deps}/libraries/nvidia/cu13/include)
find_path(MIXTUNE_NCCL nccl.h VALIDATOR mixtune_check_nccl NO_DEFAULT_PATH
          PATHS ${cuda_includes} ${cuda_deps}/libraries/nvidia/nccl/include)
if(NOT MIXTUNE_CUBLASLT OR NOT MIXTUNE_CUDNN OR NOT MIXTUNE_NCCL OR NOT MIXTUNE_NVRTC)
  list(APPEND MIXTUNE_CUDA_MISSING libraries)
endif()
set(MIXTUNE_CUDA_INCLUDES ${MIXTUNE_CUDA_ROOT}/include ${MIXTUNE_CUBLASLT} ${MIXTUNE_CUDNN} ${MIXTUNE_NCCL} ${MIXTUNE_NVRTC})
list(REMOVE_DUPLICATES MIXTUNE_CUDA_INCLUDES)

find_path(MIXTUNE_CUDNN_FRONTEND cudnn_frontend.h NO_DEFAULT_PATH
          PATHS ${cuda_includes} ${cuda_deps}/cudnn-frontend/include)
if(NOT MIXTUNE_CUDNN_FRONTEND)
  list(APPEND MIXTUNE_CUDA_MISSING cudnn-frontend)
endif()

if(CMAKE_SCRIPT_MODE_FILE)
  list(JOIN MIXTUNE_CUDA_MISSING "\n" text)
  execute_process(COMMAND ${CMAKE_COMMAND} -E echo "${text}")
endif()
