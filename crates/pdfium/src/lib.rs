//! Reads the text of PDF files with [PDFium], the PDF library of Chrome, which is loaded when the
//! program runs.
//!
//! Binds the few functions that text needs, and so works with every build of PDFium of recent
//! years. Among them is the one that says which characters a font does not identify, which
//! published bindings do not offer without unsafe code.
//!
//! [PDFium]: https://pdfium.googlesource.com/pdfium/

#![expect(unsafe_code, reason = "calls a C library")]

mod functions;

use std::cell::Cell;
use std::ffi::CStr;
use std::ffi::c_int;
use std::ffi::c_ulong;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use functions::Functions;
use functions::Handle;

/// Whether this process has a [`Pdfium`]. The library has global state.
static IS_IN_USE: AtomicBool = AtomicBool::new(false);

/// Why the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Library(#[from] libloading::Error),
    #[error("it is in use already")]
    InUse,
}

/// Why a file cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Also for a kind of encryption that the library does not know.
    #[error("the file is encrypted")]
    Encrypted,
    #[error("the file is damaged, or not a PDF")]
    Damaged,
}

/// The library. It may move between threads, but only one of them can use it at a time.
pub struct Pdfium {
    functions: Functions,
    _not_sync: PhantomData<Cell<()>>,
}

impl Pdfium {
    /// Loads the library from a file.
    ///
    /// # Errors
    /// If the file is not a build of PDFium for this system, or another `Pdfium` exists.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        if IS_IN_USE.swap(true, Ordering::Acquire) {
            return Err(LoadError::InUse);
        }
        // SAFETY: the operator names the file, and a library without these functions is refused.
        let loaded = unsafe { Functions::load(path) };
        let functions = loaded.inspect_err(|_| IS_IN_USE.store(false, Ordering::Release))?;
        // SAFETY: called once, before all other functions.
        unsafe { (functions.FPDF_InitLibrary)() };
        Ok(Self {
            functions,
            _not_sync: PhantomData,
        })
    }

    /// Opens a file. Files with an empty password, such as those that only forbid printing, are
    /// decrypted.
    ///
    /// # Errors
    /// If it needs a password or cannot be parsed.
    pub fn open<'a>(&'a self, bytes: &'a [u8]) -> Result<Document<'a>, OpenError> {
        const PASSWORD: c_ulong = 4;
        const SECURITY: c_ulong = 5;
        let data = bytes.as_ptr().cast::<c_void>();
        // SAFETY: the bytes outlive the document, and no password is a null pointer.
        let handle =
            unsafe { (self.functions.FPDF_LoadMemDocument64)(data, bytes.len(), ptr::null()) };
        if handle.is_null() {
            // SAFETY: it has no arguments.
            let code = unsafe { (self.functions.FPDF_GetLastError)() };
            return Err(match code {
                PASSWORD | SECURITY => OpenError::Encrypted,
                _ => OpenError::Damaged,
            });
        }
        let pdfium = self;
        Ok(Document {
            pdfium,
            handle,
            _bytes: PhantomData,
        })
    }
}

impl Drop for Pdfium {
    fn drop(&mut self) {
        // SAFETY: documents borrow this value, so none is left.
        unsafe { (self.functions.FPDF_DestroyLibrary)() };
        IS_IN_USE.store(false, Ordering::Release);
    }
}

/// An open file.
pub struct Document<'a> {
    pdfium: &'a Pdfium,
    handle: Handle,
    _bytes: PhantomData<&'a [u8]>,
}

impl Document<'_> {
    pub fn page_count(&self) -> u32 {
        // SAFETY: the handle is valid.
        let count = unsafe { (self.pdfium.functions.FPDF_GetPageCount)(self.handle) };
        u32::try_from(count).unwrap_or(0)
    }

    /// The page at this index, counted from 0; `None` if it cannot be read.
    pub fn page(&self, index: u32) -> Option<Page<'_>> {
        let index = c_int::try_from(index).ok()?;
        // SAFETY: the handle is valid; an index out of range returns a null pointer.
        let handle = unsafe { (self.pdfium.functions.FPDF_LoadPage)(self.handle, index) };
        (!handle.is_null()).then(|| Page {
            document: self,
            handle,
        })
    }
}

impl Drop for Document<'_> {
    fn drop(&mut self) {
        // SAFETY: pages borrow this value, so none is left.
        unsafe { (self.pdfium.functions.FPDF_CloseDocument)(self.handle) };
    }
}

/// A page of a file.
pub struct Page<'a> {
    document: &'a Document<'a>,
    handle: Handle,
}

impl Page<'_> {
    /// Whether nothing is drawn on the page.
    pub fn is_blank(&self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { (self.functions().FPDFPage_CountObjects)(self.handle) <= 0 }
    }

    /// The text of the page; `None` if it cannot be read.
    pub fn text(&self) -> Option<PageText<'_>> {
        // SAFETY: the handle is valid.
        let handle = unsafe { (self.functions().FPDFText_LoadPage)(self.handle) };
        (!handle.is_null()).then(|| PageText { page: self, handle })
    }

    /// The texts that stand on the page without being part of its content: those that were filled
    /// into a form, and comments that are shown as text.
    pub fn notes(&self) -> Vec<String> {
        // SAFETY: the handle is valid.
        let count = unsafe { (self.functions().FPDFPage_GetAnnotCount)(self.handle) };
        (0..count).filter_map(|index| self.note(index)).collect()
    }

    fn note(&self, index: c_int) -> Option<String> {
        const FREE_TEXT: c_int = 3;
        const WIDGET: c_int = 20;
        let functions = self.functions();
        // SAFETY: the handle is valid; an index out of range returns a null pointer.
        let annotation = unsafe { (functions.FPDFPage_GetAnnot)(self.handle, index) };
        if annotation.is_null() {
            return None;
        }
        // SAFETY: the annotation is valid until it is closed, below.
        let key = match unsafe { (functions.FPDFAnnot_GetSubtype)(annotation) } {
            FREE_TEXT => Some(c"Contents"),
            WIDGET => Some(c"V"),
            _ => None,
        };
        let text = key.and_then(|key| string_value(functions, annotation, key));
        // SAFETY: nothing refers to the annotation any more.
        unsafe { (functions.FPDFPage_CloseAnnot)(annotation) };
        text.filter(|text| !text.trim().is_empty())
    }

    fn functions(&self) -> &Functions {
        &self.document.pdfium.functions
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        // SAFETY: texts borrow this value, so none is left.
        unsafe { (self.functions().FPDF_ClosePage)(self.handle) };
    }
}

/// The string of this key of an annotation; `None` if it is of another type, such as the state of
/// a checkbox.
fn string_value(functions: &Functions, annotation: Handle, key: &CStr) -> Option<String> {
    const STRING: c_int = 3;
    let (key, get) = (key.as_ptr(), functions.FPDFAnnot_GetStringValue);
    // SAFETY: the annotation is valid, and nothing is written through a null pointer.
    let (kind, bytes) = unsafe {
        (
            (functions.FPDFAnnot_GetValueType)(annotation, key),
            get(annotation, key, ptr::null_mut(), 0),
        )
    };
    if kind != STRING {
        return None;
    }
    let mut units = vec![0_u16; usize::try_from(bytes).ok()?.div_ceil(2)];
    // SAFETY: the buffer has that many bytes.
    unsafe { get(annotation, key, units.as_mut_ptr(), bytes) };
    // A zero ends the string.
    let length = units.iter().position(|&unit| unit == 0)?;
    Some(String::from_utf16_lossy(&units[..length]))
}

/// The text of a page.
pub struct PageText<'a> {
    page: &'a Page<'a>,
    handle: Handle,
}

/// A character in a page's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Character {
    /// Includes the spaces and line breaks (`\r\n`) that the library infers from positions.
    Known(char),
    /// A hyphen that divides a word at the end of a line.
    Hyphen,
    /// A glyph for which the font names no character.
    Unknown,
}

impl PageText<'_> {
    /// The characters in the order of the file, but those of right-to-left scripts in reading order.
    pub fn characters(&self) -> impl Iterator<Item = Character> {
        // SAFETY: the handle is valid.
        let count = unsafe { (self.page.functions().FPDFText_CountChars)(self.handle) };
        (0..count).filter_map(|index| self.character(index))
    }

    fn character(&self, index: c_int) -> Option<Character> {
        let functions = self.page.functions();
        // SAFETY: the handle is valid, and an index out of range returns an error value.
        let (is_unmapped, is_hyphen, code) = unsafe {
            (
                (functions.FPDFText_HasUnicodeMapError)(self.handle, index) == 1,
                (functions.FPDFText_IsHyphen)(self.handle, index) == 1,
                (functions.FPDFText_GetUnicode)(self.handle, index),
            )
        };
        match char::from_u32(code) {
            // Fonts made of pictures, such as those of older TeX, have no names and no character
            // map, but their codes of letters are those of ASCII.
            Some(letter)
                if is_unmapped && letter.is_ascii_graphic() && !self.has_font_name(index) =>
            {
                Some(Character::Known(letter))
            }
            _ if is_unmapped => Some(Character::Unknown),
            _ if is_hyphen => Some(Character::Hyphen),
            Some('\0') | None => None,
            Some(character) => Some(Character::Known(character)),
        }
    }

    fn has_font_name(&self, index: c_int) -> bool {
        let get_font = self.page.functions().FPDFText_GetFontInfo;
        // SAFETY: the handle is valid, and nothing is written through the null pointers.
        let size = unsafe { get_font(self.handle, index, ptr::null_mut(), 0, ptr::null_mut()) };
        // The size includes the zero byte at the end.
        size > 1
    }
}

impl Drop for PageText<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is valid, and nothing borrows the text any more.
        unsafe { (self.page.functions().FPDFText_ClosePage)(self.handle) };
    }
}
