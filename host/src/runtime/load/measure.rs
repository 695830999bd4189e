//! What a component would take, read from its sections before anything compiles it.
//!
//! A few kilobytes can ask for billions of instances: a component that instantiates another one
//! twice, which instantiates another one twice, and so on. Here they are counted, not made.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef,
    Encoding, Instance, Parser, Payload,
};

use super::LoadError;
use crate::runtime::limits::MOST_TABLE_ELEMENTS;
use crate::runtime::pool::{MOST_CORE_INSTANCES, MOST_MEMORIES, MOST_TABLES};

/// Components within each other. Those of toolchains are two deep, composed ones a few more.
const DEEPEST: usize = 32;

/// Component instances of one component, those of its parts included.
const MOST_INSTANCES: u64 = 1_000;

/// What has to be looked at to instantiate it: definitions of its parts, each as often as the part
/// is instantiated. Those of Python have some thousands.
const MOST_ITEMS: u64 = 1_000_000;

/// Functions, of all modules together. Those of Python have some tens of thousands.
const MOST_FUNCTIONS: u64 = 1_000_000;

/// What instances of a component, or of a part of it, have in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::runtime) struct Totals {
    pub(in crate::runtime) instances: u64,
    pub(in crate::runtime) core_instances: u64,
    pub(in crate::runtime) memories: u64,
    /// Bytes that the memories have to begin with.
    pub(in crate::runtime) memory_bytes: u64,
    pub(in crate::runtime) tables: u64,
    largest_table: u64,
    items: u64,
}

/// What was read of a file.
#[derive(Clone, Debug, Default)]
pub(in crate::runtime) struct Measured {
    pub(in crate::runtime) totals: Totals,
    pub(in crate::runtime) functions: u64,
    /// What the file says of itself.
    pub(in crate::runtime) description: Option<String>,
}

/// A module or a component that is being read.
#[derive(Default)]
struct Part {
    is_module: bool,
    totals: Totals,
    /// None where it is not known what it is: an import, or an export of an instance.
    modules: Vec<Option<Totals>>,
    components: Vec<Option<Totals>>,
}

impl Totals {
    fn add(&mut self, other: Self) {
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut self.instances, other.instances);
        add(&mut self.core_instances, other.core_instances);
        add(&mut self.memories, other.memories);
        add(&mut self.memory_bytes, other.memory_bytes);
        add(&mut self.tables, other.tables);
        add(&mut self.items, other.items);
        self.largest_table = self.largest_table.max(other.largest_table);
    }
}

/// Measures a component or a core module.
///
/// # Errors
/// Where it is damaged, or where it cannot be told what it would take.
pub(in crate::runtime) fn measure(bytes: &[u8]) -> Result<Measured, LoadError> {
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Invalid(error.to_string());
    let mut stack: Vec<Part> = Vec::new();
    let mut functions = 0_u64;
    let (mut whole, mut description) = (None, None);
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        match payload {
            Payload::Version { encoding, .. } => {
                if stack.len() >= DEEPEST {
                    return Err(LoadError::TooMuch(format!(
                        "it has components within each other, more than {DEEPEST} deep"
                    )));
                }
                stack.push(Part { is_module: encoding == Encoding::Module, ..Part::default() });
            }
            Payload::CustomSection(section) if stack.len() == 1 && section.name() == "description" => {
                description = std::str::from_utf8(section.data()).ok().map(str::to_owned);
            }
            Payload::FunctionSection(section) => functions += u64::from(section.count()),
            Payload::End(_) => {
                let Some(part) = stack.pop() else { break };
                match stack.last_mut() {
                    Some(outer) if part.is_module => outer.modules.push(Some(part.totals)),
                    Some(outer) => outer.components.push(Some(part.totals)),
                    None => whole = Some(part),
                }
            }
            payload => read(&payload, &mut stack)?,
        }
    }
    let whole = whole.ok_or_else(|| LoadError::Invalid("it ends before its end".to_owned()))?;
    let mut totals = whole.totals;
    if whole.is_module {
        totals.core_instances = 1;
    }
    Ok(Measured { totals, functions, description })
}

fn read(payload: &Payload<'_>, stack: &mut [Part]) -> Result<(), LoadError> {
    let Some((part, outer)) = stack.split_last_mut() else { return Ok(()) };
    read_section(payload, part, outer).map_err(|problem| match problem {
        Problem::Binary(error) => LoadError::Invalid(error.to_string()),
        Problem::Index => LoadError::Invalid("it names something by a number that nothing has".to_owned()),
        Problem::Unknown => LoadError::TooMuch(
            "it instantiates a module or component that it is given by another one, so that it cannot be told \
             how large it becomes"
                .to_owned(),
        ),
    })
}

enum Problem {
    Binary(wasmparser::BinaryReaderError),
    Index,
    Unknown,
}

impl From<wasmparser::BinaryReaderError> for Problem {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Binary(error)
    }
}

fn read_section(payload: &Payload<'_>, part: &mut Part, outer: &[Part]) -> Result<(), Problem> {
    let items = match payload {
        Payload::MemorySection(section) => {
            for memory in section.clone() {
                part.totals.add(of_memory(memory?));
            }
            0
        }
        Payload::TableSection(section) => {
            for table in section.clone() {
                part.totals.tables += 1;
                part.totals.largest_table = part.totals.largest_table.max(table?.ty.initial);
            }
            0
        }
        Payload::InstanceSection(section) => {
            for instance in section.clone() {
                if let Instance::Instantiate { module_index, .. } = instance? {
                    part.totals.add(known(&part.modules, module_index)?);
                    part.totals.core_instances = part.totals.core_instances.saturating_add(1);
                }
            }
            section.count()
        }
        Payload::ComponentInstanceSection(section) => {
            for instance in section.clone() {
                if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                    part.totals.add(known(&part.components, component_index)?);
                    part.totals.instances = part.totals.instances.saturating_add(1);
                }
            }
            section.count()
        }
        Payload::ComponentAliasSection(section) => {
            for alias in section.clone() {
                take_alias(&alias?, part, outer)?;
            }
            section.count()
        }
        Payload::ComponentImportSection(section) => {
            for import in section.clone() {
                match import?.ty {
                    ComponentTypeRef::Module(_) => part.modules.push(None),
                    ComponentTypeRef::Component(_) => part.components.push(None),
                    _ => {}
                }
            }
            section.count()
        }
        // What is exported has a second number from there on.
        Payload::ComponentExportSection(section) => {
            for export in section.clone() {
                let export = export?;
                match export.kind {
                    ComponentExternalKind::Module => part.modules.push(at(&part.modules, export.index)?),
                    ComponentExternalKind::Component => {
                        part.components.push(at(&part.components, export.index)?);
                    }
                    _ => {}
                }
            }
            section.count()
        }
        Payload::ComponentCanonicalSection(section) => section.count(),
        Payload::ComponentTypeSection(section) => section.count(),
        Payload::CoreTypeSection(section) => section.count(),
        _ => 0,
    };
    part.totals.items = part.totals.items.saturating_add(u64::from(items));
    Ok(())
}

fn of_memory(memory: wasmparser::MemoryType) -> Totals {
    let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
    Totals { memories: 1, memory_bytes: memory.initial.saturating_mul(page), ..Totals::default() }
}

fn take_alias(alias: &ComponentAlias<'_>, part: &mut Part, outer: &[Part]) -> Result<(), Problem> {
    match *alias {
        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => part.modules.push(None),
        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
            part.components.push(None);
        }
        ComponentAlias::Outer { kind, count, index } => {
            let of = |part: &Part| match kind {
                ComponentOuterAliasKind::CoreModule => at(&part.modules, index).map(Some),
                ComponentOuterAliasKind::Component => at(&part.components, index).map(Some),
                _ => Ok(None),
            };
            // 0 is the component itself.
            let aliased = match usize::try_from(count).ok().and_then(|count| count.checked_sub(1)) {
                None => of(part)?,
                Some(count) => of(outer.iter().rev().nth(count).ok_or(Problem::Index)?)?,
            };
            match (kind, aliased) {
                (ComponentOuterAliasKind::CoreModule, Some(module)) => part.modules.push(module),
                (ComponentOuterAliasKind::Component, Some(component)) => part.components.push(component),
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}

fn at(space: &[Option<Totals>], index: u32) -> Result<Option<Totals>, Problem> {
    usize::try_from(index).ok().and_then(|index| space.get(index)).copied().ok_or(Problem::Index)
}

fn known(space: &[Option<Totals>], index: u32) -> Result<Totals, Problem> {
    at(space, index)?.ok_or(Problem::Unknown)
}

impl Measured {
    /// Compares with what an instance can have on this host, and with the memory that an
    /// execution may have.
    ///
    /// # Errors
    /// The first that is too much.
    pub(in crate::runtime) fn check(&self, memory: u64) -> Result<(), LoadError> {
        let Totals { instances, core_instances, memories, memory_bytes, tables, largest_table, items } =
            self.totals;
        for (has, most, what) in [
            (core_instances, u64::from(MOST_CORE_INSTANCES), "instances of core modules"),
            (instances, MOST_INSTANCES, "instances of components"),
            (memories, u64::from(MOST_MEMORIES), "memories"),
            (tables, u64::from(MOST_TABLES), "tables"),
            (largest_table, MOST_TABLE_ELEMENTS as u64, "elements in one table"),
            (self.functions, MOST_FUNCTIONS, "functions"),
            (items, MOST_ITEMS, "definitions to instantiate"),
        ] {
            if has > most {
                let has =
                    if has == u64::MAX { "more than can be counted".to_owned() } else { has.to_string() };
                return Err(LoadError::TooMuch(format!("{what}: {has}, and this host has room for {most}")));
            }
        }
        if memory_bytes > memory {
            let size = |bytes| bytesize::ByteSize::b(bytes);
            return Err(LoadError::TooMuch(format!(
                "its memories have {} to begin with, and `limits.memory` of the plugin allows {}; raise it if \
                 the plugin is to have so much",
                size(memory_bytes),
                size(memory)
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(wat: &str) -> Measured {
        measure(&wat::parse_str(wat).expect("it is WAT")).expect("it can be measured")
    }

    fn refused(wat: &str) -> String {
        let bytes = wat::parse_str(wat).expect("it is WAT");
        let checked = measure(&bytes).and_then(|measured| measured.check(64 << 20));
        checked.expect_err("it is too much").to_string()
    }

    #[test]
    fn instances_are_counted_with_those_of_their_parts() {
        let Measured { totals, functions, .. } = measured(
            "(component
               (core module $m (memory 2) (memory 1) (table 7 funcref) (func))
               (component $inner
                 (alias outer 1 $m (core module $m))
                 (core instance (instantiate $m)) (core instance (instantiate $m)))
               (core instance (instantiate $m))
               (instance (instantiate $inner))
               (instance $i (instantiate $inner))
               (export \"i\" (instance $i)))",
        );
        assert_eq!((totals.core_instances, totals.instances, functions), (5, 2, 1));
        assert_eq!((totals.memories, totals.memory_bytes), (10, 15 * 65_536));
        assert_eq!((totals.tables, totals.largest_table), (5, 7));
    }

    #[test]
    fn a_component_that_doubles_itself_again_and_again_is_counted_and_not_made() {
        let mut wat = "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
        for n in 1..100 {
            let inner = n - 1;
            wat = format!(
                "{wat} (component $c{n} (alias outer 1 $c{inner} (component $c))
                   (instance (instantiate $c)) (instance (instantiate $c)))"
            );
        }
        let message = refused(&format!("(component {wat} (instance (instantiate $c99)))"));
        assert!(message.contains("instances of core modules: more than can be counted"), "{message}");
        assert!(message.contains("room for 60"), "{message}");
    }

    #[test]
    fn what_an_instance_cannot_have_is_refused_with_both_numbers() {
        let many = |count: usize, what: &str| what.repeat(count);
        for (wat, why) in [
            (format!("(module {})", many(5, "(memory 1)")), "memories: 5, and this host has room for 4"),
            (format!("(module {})", many(21, "(table 1 funcref)")), "tables: 21"),
            ("(module (table 1000000 funcref))".to_owned(), "elements in one table: 1000000"),
            ("(module (memory 2000))".to_owned(), "have 125.0 MiB to begin with"),
            (
                format!("(component (core module $m) {})", many(61, "(core instance (instantiate $m))")),
                "instances of core modules: 61",
            ),
            (
                format!("(component (component $c) {})", many(1001, "(instance (instantiate $c))")),
                "instances of components: 1001",
            ),
        ] {
            let message = refused(&wat);
            assert!(message.contains(why), "{why}: {message}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let wat = "(component ".repeat(40) + &")".repeat(40);
        assert!(refused(&wat).contains("more than 32 deep"));
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let message = refused(
            "(component
               (import \"m\" (core module $m))
               (core instance (instantiate $m)))",
        );
        assert!(message.contains("it cannot be told how large it becomes"), "{message}");
    }
}
