//! What the instrument is set to, as nice-plug's state object: each parameter as its text, and the project. Main thread.

use std::collections::BTreeMap;

use nice_plug::plugin::ParamValue;
use nice_plug::prelude::{Params, PluginState};

/// The state of these parameters.
pub fn state_of(params: &dyn Params) -> PluginState {
    let text = |(id, ptr, _): (String, nice_plug::prelude::ParamPtr, String)| {
        // SAFETY: the parameters, and so what is pointed to, live as long as `params`.
        let text = unsafe { ptr.normalized_value_to_string(ptr.unmodulated_normalized_value(), false) };
        (id, ParamValue::String(text))
    };
    PluginState {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        params: params.param_map().into_iter().map(text).collect::<BTreeMap<_, _>>(),
        fields: params.serialize_fields(),
    }
}

/// Sets parameters and project to a state. What it does not name, or names with a value that makes no sense, stays as it is.
pub fn restore(params: &dyn Params, state: &PluginState) {
    for (id, ptr, _) in params.param_map() {
        if let Some(ParamValue::String(text)) = state.params.get(&id) {
            // SAFETY: as above.
            unsafe {
                if let Some(normalized) = ptr.string_to_normalized_value(text) {
                    ptr._internal_set_normalized_value(normalized);
                }
            }
        }
    }
    params.deserialize_fields(&state.fields);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nice_plug::prelude::Plugin;
    use tiller::Tiller;

    #[test]
    fn a_state_comes_back_in_another_instance() {
        let (one, other) = (Tiller::default().params(), Tiller::default().params());
        let before = state_of(&*one);
        let mut changed = before.clone();
        for (id, text) in [("note", "D#"), ("guidance", "3.25"), ("seed", "77"), ("gain", "-6.0"), ("run", "keys")] {
            let before = changed.params.insert(id.into(), ParamValue::String(text.into()));
            assert!(before.is_some(), "{id} is a parameter");
        }
        changed.fields.insert("project".into(), r#""{\"version\":1,\"prompt\":\"organ\"}""#.into());
        restore(&*other, &changed);
        let after = state_of(&*other);
        assert_eq!(serde_json::to_value(&after.params).ok(), serde_json::to_value(&changed.params).ok());
        assert!(after.fields["project"].contains("organ"), "{:?}", after.fields);
        changed.params.insert("seed".into(), ParamValue::String("a lot".into()));
        restore(&*other, &changed);
        assert_eq!(serde_json::to_value(state_of(&*other).params).ok(), serde_json::to_value(after.params).ok());
    }
}
