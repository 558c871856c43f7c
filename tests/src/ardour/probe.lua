-- An instrument of Ardour's own kind that hides nothing: its lane on the left, its keys on the right, both as late as it says.
ardour {
	["type"]    = "dsp",
	name        = "Probe",
	category    = "Instrument",
	license     = "MIT",
	author      = "Tiller",
	description = [[Its lane (left) and its keys (right) as signals, 10,000 samples late, which it reports.]]
}

local latency = 10000
local lane, keys, place, held = {}, {}, 0, 0

function dsp_ioconfig ()
	return { { midi_in = 1, audio_in = 0, audio_out = 2 } }
end

function dsp_params ()
	return { { ["type"] = "input", name = "Level", min = 0, max = 1, default = 0 } }
end

function dsp_latency ()
	return latency
end

function dsp_run (ins, outs, samples)
	local level = CtrlPorts:array ()[1]
	local left, right = outs[1]:array (), outs[2]:array ()
	local event = 1
	for sample = 1, samples do
		while midiin[event] and midiin[event].time <= sample do
			local status = midiin[event].data[1] >> 4
			if status == 9 then held = 0.5 elseif status == 8 then held = 0 end
			event = event + 1
		end
		left[sample], right[sample] = lane[place] or 0, keys[place] or 0
		lane[place], keys[place] = level, held
		place = (place + 1) % latency
	end
end
