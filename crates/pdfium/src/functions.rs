//! The functions of the library, by the declarations in PDFium's `public/*.h`.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::ffi::c_ulong;
use std::ffi::c_void;
use std::path::Path;

use libloading::Library;

/// Declares a table of functions that keeps their library loaded.
macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[expect(non_snake_case, reason = "the names of the C library")]
        pub(crate) struct Functions {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _library: Library,
        }

        impl Functions {
            /// Loads the library and looks up every function.
            ///
            /// # Safety
            /// The file must be a build of PDFium: its initialisers are run, and its functions are
            /// assumed to have the types declared here.
            pub(crate) unsafe fn load(path: &Path) -> Result<Self, libloading::Error> {
                // SAFETY: as above.
                unsafe {
                    let library = Library::new(path)?;
                    Ok(Self {
                        $($name: *library.get(concat!(stringify!($name), "\0").as_bytes())?,)*
                        _library: library,
                    })
                }
            }
        }
    };
}

/// A handle: a pointer to an object of the library.
pub(crate) type Handle = *mut c_void;

functions! {
    FPDF_InitLibrary();
    FPDF_DestroyLibrary();
    FPDF_GetLastError() -> c_ulong;
    FPDF_LoadMemDocument64(*const c_void, usize, *const c_char) -> Handle;
    FPDF_CloseDocument(Handle);
    FPDF_GetPageCount(Handle) -> c_int;
    FPDF_LoadPage(Handle, c_int) -> Handle;
    FPDF_ClosePage(Handle);
    FPDFPage_CountObjects(Handle) -> c_int;
    FPDFPage_GetAnnotCount(Handle) -> c_int;
    FPDFPage_GetAnnot(Handle, c_int) -> Handle;
    FPDFPage_CloseAnnot(Handle);
    FPDFAnnot_GetSubtype(Handle) -> c_int;
    FPDFAnnot_GetValueType(Handle, *const c_char) -> c_int;
    FPDFAnnot_GetStringValue(Handle, *const c_char, *mut u16, c_ulong) -> c_ulong;
    FPDFText_LoadPage(Handle) -> Handle;
    FPDFText_ClosePage(Handle);
    FPDFText_CountChars(Handle) -> c_int;
    FPDFText_GetUnicode(Handle, c_int) -> c_uint;
    FPDFText_GetFontInfo(Handle, c_int, *mut c_void, c_ulong, *mut c_int) -> c_ulong;
    FPDFText_HasUnicodeMapError(Handle, c_int) -> c_int;
    FPDFText_IsHyphen(Handle, c_int) -> c_int;
}
