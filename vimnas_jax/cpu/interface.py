"""XLA's C structs as the kernels read and write them: offsets in bytes, under the name of the struct they belong to.

The structs are those of xla/ffi/api/c_api.h, which jaxlib ships; a name here is the struct's and the field's there.
Most begin with their own size, which says how many fields the other side knows: `…_SIZE` is what it must be at least
for all that is used here to be there. source/job.py compares them before it reads on.
"""

VERSION = 0, 3  # major and minor, whose layout this is

# XLA_FFI_CallFrame; its last three fields are structs in place, not pointers
FRAME_EXTENSION, FRAME_API, FRAME_CTX, FRAME_STAGE = 8, 16, 24, 32
FRAME_ARGS, FRAME_RETS, FRAME_ATTRS, FRAME_SIZE = 40, 80, 120, 168
STAGE_EXECUTE = 3  # XLA_FFI_ExecutionStage, 32 bits

# XLA_FFI_Args and XLA_FFI_Rets: how many, their types (32 bits each), pointers to them
LIST_COUNT, LIST_TYPES, LIST_ITEMS, LIST_SIZE = 16, 24, 32, 40
TYPE_BUFFER = 1  # XLA_FFI_ArgType, XLA_FFI_RetType

# XLA_FFI_Attrs: as those, with the names before the pointers
ATTRS_COUNT, ATTRS_TYPES, ATTRS_ITEMS, ATTRS_SIZE = 16, 24, 40, 48
TYPE_SCALAR = 3  # XLA_FFI_AttrType

# XLA_FFI_Buffer
BUFFER_DATA, BUFFER_RANK, BUFFER_DIMS, BUFFER_SIZE = 24, 32, 40, 48

# XLA_FFI_Scalar, which has no size of its own
SCALAR_DTYPE, SCALAR_VALUE = 0, 8
DTYPE_S64 = 5  # XLA_FFI_DataType, 32 bits

# XLA_FFI_Api, a table of functions behind its version, XLA_FFI_Api_Version in place
API_MAJOR, API_MINOR, API_ERROR_CREATE, API_ERROR_DESTROY = 32, 36, 48, 64
API_SCHEDULE, API_NUM_THREADS, API_SIZE = 136, 144, 152  # XLA_FFI_ThreadPool_Schedule and _NumThreads
API_LEAST = 56  # with which XLA_FFI_Error_Create is there

# XLA_FFI_Extension_Base, and XLA_FFI_Metadata_Extension, which begins with one
EXTENSION_TYPE, EXTENSION_NEXT, EXTENSION_METADATA, EXTENSION_SIZE = 8, 16, 24, 32
TYPE_METADATA = 1  # XLA_FFI_Extension_Type, 32 bits

# XLA_FFI_Metadata, with an XLA_FFI_Api_Version in place
METADATA_MAJOR, METADATA_MINOR, METADATA_SIZE = 24, 28, 32

# XLA_FFI_ThreadPool_NumThreads_Args: the number goes to an address
THREADS_CTX, THREADS_NUM, THREADS_SIZE = 16, 24, 32

# XLA_FFI_ThreadPool_Schedule_Args: a function and its argument
TASK_CTX, TASK_TASK, TASK_DATA, TASK_SIZE = 16, 24, 32, 40

# XLA_FFI_Error_Create_Args and XLA_FFI_Error_Destroy_Args
CREATE_MESSAGE, CREATE_ERRC, CREATE_SIZE = 16, 24, 28
DESTROY_ERROR, DESTROY_SIZE = 16, 24
FAILED_PRECONDITION = 9  # XLA_FFI_Error_Code, 32 bits
