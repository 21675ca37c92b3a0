/// The workload's settings, being edited. Any view can open it: `overlay = .workloadForm(WorkloadForm(workload.settings))`.
struct WorkloadForm: Hashable, Sendable {
    enum Field: Int, CaseIterable, Hashable, Sendable {
        case puts, gets, clients, valueBytes, keyCount, distribution, consistency, target, pace

        var label: String {
            switch self {
            case .puts: "puts a second"
            case .gets: "gets a second"
            case .clients: "clients"
            case .valueBytes: "value bytes"
            case .keyCount: "keys"
            case .distribution: "key choice"
            case .consistency: "gets"
            case .target: "ask"
            case .pace: "pace"
            }
        }

        /// nil: a number is typed.
        var choices: [(text: String, help: String)]? {
            switch self {
            case .puts, .gets, .clients, .valueBytes, .keyCount: nil
            case .distribution: [("uniform", "every key as often"), ("zipf", "few keys very often"), ("sequential", "one after the other")]
            case .consistency: [("linearizable", "always the newest, through the leader"), ("serializable", "what the asked member has, perhaps old")]
            case .target: [("all members", "one after the other"), ("leader", "whoever leads")]
            case .pace: [("open", "due at the rate whatever happens: a stall shows in all it delayed"), ("closed", "a client waits for its answer before it asks again")]
            }
        }

        var help: String {
            switch self {
            case .puts, .gets: "0 to 20,000"
            case .clients: "requests that may be under way at the same time: 1 to 1,000"
            case .valueBytes: "24 to 1,048,576"
            case .keyCount: "keys below /quarterdeck/workload/: 1 to 100,000"
            default: ""
            }
        }
    }

    var field = Field.puts
    /// The numbers as typed, by field.
    var numbers: [TextField]
    var picks: [Int]
    var problem: String?
    /// A number that is typed into for the first time is replaced.
    var isFresh = true

    init(_ settings: WorkloadSettings) {
        numbers = [settings.putsPerSecond, settings.readsPerSecond, settings.clients, settings.valueBytes, settings.keyCount].map { TextField(String($0)) }
        picks = [WorkloadSettings.Distribution.allCases.firstIndex(of: settings.distribution)!, WorkloadSettings.Consistency.allCases.firstIndex(of: settings.consistency)!,
                 WorkloadSettings.Target.allCases.firstIndex(of: settings.target)!, WorkloadSettings.Pace.allCases.firstIndex(of: settings.pace)!]
    }

    private static let pickStart = Field.distribution.rawValue
    func pick(_ field: Field) -> Int { picks[field.rawValue - WorkloadForm.pickStart] }

    /// The settings as they stand in the form, or why they cannot be.
    var settings: Result<WorkloadSettings, Problem> {
        var values: [Int] = []
        for (index, number) in numbers.enumerated() {
            let digits = number.text.filter { $0 != "," && $0 != " " }
            guard let value = Int(digits), value >= 0 else { return .failure(Problem(field: Field(rawValue: index)!, text: "\(Field(rawValue: index)!.label): a number is needed")) }
            values.append(value)
        }
        let settings = WorkloadSettings(putsPerSecond: values[0], readsPerSecond: values[1], clients: values[2], valueBytes: values[3], keyCount: values[4],
                                        distribution: .allCases[picks[0]], consistency: .allCases[picks[1]], target: .allCases[picks[2]], pace: .allCases[picks[3]])
        if let problem = settings.problem { return .failure(Problem(field: Field.allCases.first { problem.hasPrefix($0.label) }, text: problem)) }
        return .success(settings)
    }

    struct Problem: Error, Hashable {
        var field: Field?
        var text: String
    }

    mutating func move(_ step: Int) {
        field = Field(rawValue: (field.rawValue + step + Field.allCases.count) % Field.allCases.count)!
        isFresh = true
    }

    mutating func choose(_ step: Int) {
        guard let count = field.choices?.count else { return }
        let index = field.rawValue - WorkloadForm.pickStart
        picks[index] = (picks[index] + step + count) % count
        problem = nil
    }

    mutating func insert(_ text: String) {
        guard field.choices == nil else { return }
        let digits = text.filter { $0.isASCII && $0.isNumber }
        guard !digits.isEmpty else { return }
        if isFresh { numbers[field.rawValue] = TextField() }
        isFresh = false
        problem = nil
        // Longer than any number that is allowed.
        guard numbers[field.rawValue].characters.count + digits.count <= 9 else { return }
        numbers[field.rawValue].insert(digits)
    }
}

extension Model {
    mutating func handle(_ state: WorkloadForm, _ key: KeyPress, _ commands: inout [Command]) {
        var form = state
        switch (key.code, key.modifiers) {
        case (.escape, _):
            overlay = nil
            return
        case (.enter, _), (.character("s"), .control):
            accept(form, &commands)
            return
        case (.down, _), (.tab, _): form.move(1)
        case (.up, _), (.backTab, _): form.move(-1)
        case (.character(" "), []), (.character("l"), []): form.choose(1)
        case (.character("h"), []): form.choose(-1)
        case (.left, _) where form.field.choices != nil: form.choose(-1)
        case (.right, _) where form.field.choices != nil: form.choose(1)
        case (.character(let character), []): form.insert(String(character))
        default:
            if form.field.choices == nil, form.numbers[form.field.rawValue].handle(key) {
                form.isFresh = false
                form.problem = nil
            }
        }
        overlay = .workloadForm(form)
    }

    private mutating func accept(_ form: WorkloadForm, _ commands: inout [Command]) {
        switch form.settings {
        case .failure(let problem):
            var form = form
            form.problem = problem.text
            if let field = problem.field { form.field = field }
            overlay = .workloadForm(form)
        case .success(let settings):
            overlay = nil
            let isSame = settings == workload.settings
            workload.settings = settings
            if let reason = obstacle(to: .workload, changes: true) { return say("kept for later: \(reason)", .warn) }
            if workload.isOn {
                guard !isSame else { return say("nothing changed", .dim) }
                send(.workload(true), &commands) { .setWorkload($0, settings: settings) }
            } else if cluster.kind == .attached {
                overlay = .confirm(Confirmation(question: .workload))
            } else {
                switchWorkload(&commands)
            }
        }
    }

    func drawWorkloadForm(_ form: WorkloadForm, _ canvas: inout Canvas) {
        let rows = WorkloadForm.Field.allCases.count + 6
        let inside = overlayBox(&canvas, columns: 76, rows: rows, title: "Workload", right: [Span("↑↓ field · ←→ choice · ↵ · Esc", .dim)])
        guard inside.rows > 4 else { return }
        var row = inside.row + (inside.rows >= rows - 2 ? 1 : 0)
        for field in WorkloadForm.Field.allCases where row < inside.endRow - 2 {
            let isHere = field == form.field
            put([Span(isHere ? "▸ " : "  ", .accent), Span(field.label, isHere ? .text : .dim)], &canvas, inside.column + 1, row, width: 18)
            let x = inside.column + 20
            if let choices = field.choices {
                var spans: [Span] = []
                for (index, choice) in choices.enumerated() {
                    let isPicked = index == form.pick(field)
                    spans += [Span(isPicked ? "[\(choice.text)]" : " \(choice.text) ", isPicked ? (isHere ? .accent : .text) : .faint, isPicked ? .bold : []), Span(" ", .faint)]
                }
                put(spans, &canvas, x, row, width: inside.endColumn - x - 1)
            } else {
                let number = form.numbers[field.rawValue]
                let style = Style.ink(isHere ? .accent : .text, .bold).on(.overlay)
                if isHere {
                    canvas.field(number, x + 1, row, width: 11, style)
                    put([Span(field.help, .faint)], &canvas, x + 14, row, width: inside.endColumn - x - 15)
                } else {
                    put([Span(Int(number.text).map { Format.count($0) } ?? number.text, .text)], &canvas, x + 1, row, width: 12)
                }
            }
            row += 1
        }
        let foot = inside.endRow - 2
        let help = form.field.choices.map { $0[form.pick(form.field)].help } ?? ""
        put([Span(form.problem ?? help, form.problem == nil ? .dim : .warn)], &canvas, inside.column + 3, foot, width: inside.columns - 5)
        put([Span("↵", .key, .bold), Span(workload.isOn ? " changes the running workload" : " starts the workload", .dim), Span("    Esc", .key, .bold), Span(" leaves it as it is", .dim)], &canvas, inside.column + 3, foot + 1, width: inside.columns - 5)
    }
}
